//! Ten thousand machines roll a release: the same decisions as in a machine, on a store, a network and clocks that are simulated. A
//! run is told by its seed.

#![allow(clippy::unwrap_used, clippy::cast_precision_loss)]

use ashlar_lock::attempt::{Attempt, Watch, attempt, watch};
use ashlar_lock::semaphore::{Gate, Holder, Semaphore, Stale};
use ashlar_lock::store::{Change, Snapshot, WAITERS};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::rc::Rc;

/// Milliseconds of the simulation.
type Time = u64;

/// What a machine is about to do, when its time comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Doing {
    /// Reads the group.
    Look,
    /// Puts itself into the queue.
    Enqueue,
    /// Makes the change that it has decided on.
    Commit,
    /// Is back, and well.
    Back,
    /// Is back, and the release has failed.
    Failed,
    /// An operator has mended it.
    Mended,
    /// Its lease in the queue or as a holder runs out: it has died.
    Gone,
}

#[derive(Debug, Default)]
struct Machine {
    queued: Option<u64>,
    change: Option<Change>,
    token: String,
    /// What it waits for; the version makes old waits void.
    waits: Option<Watch>,
    dead: bool,
    done: bool,
}

#[derive(Debug, Clone, Copy)]
struct Plan {
    machines: usize,
    places: u32,
    /// Per mille of machines on which the release fails, that die while they wait, and that die as holders.
    failing: u64,
    dying_waiting: u64,
    dying_holding: u64,
    gate: Option<Gate>,
    /// Seconds until an operator has mended a machine; never without.
    mending: Option<u64>,
}

#[derive(Debug, Default)]
struct Outcome {
    /// Until the last machine was done, in milliseconds.
    took: Time,
    /// For how long each place was needed that was taken, in the order of taking.
    work: Vec<Time>,
    most: usize,
    done: usize,
    failed: usize,
    conflicts: u64,
    reads: u64,
    stopped: bool,
}

struct World {
    plan: Plan,
    seed: u64,
    now: Time,
    order: u64,
    events: BinaryHeap<Reverse<(Time, u64, usize, Doing)>>,
    machines: Vec<Machine>,
    semaphore: Semaphore,
    changed: i64,
    revision: i64,
    queue: BTreeMap<u64, usize>,
    alive: HashSet<usize>,
    watching_all: HashSet<usize>,
    watching: HashMap<usize, HashSet<usize>>,
    outcome: Outcome,
    seen: Option<Rc<Snapshot>>,
}

impl Outcome {
    /// How long it would take if a place were taken in the moment in which it becomes free.
    fn ideal(&self, places: u32) -> Time {
        let mut free: BinaryHeap<Reverse<Time>> = (0..places).map(|_| Reverse(0)).collect();
        let mut end = 0;
        for long in &self.work {
            let Reverse(from) = free.pop().unwrap();
            end = end.max(from + long);
            free.push(Reverse(from + long));
        }
        end
    }
}

impl World {
    fn new(plan: Plan, seed: u64) -> Self {
        let mut semaphore = Semaphore::default();
        semaphore.set_max(plan.places, 0).unwrap();
        semaphore.set_gate(plan.gate, 0).unwrap();
        semaphore.set_stale(Some(Stale { after: 3600, automatic: true }), 0).unwrap();
        let mut world = Self {
            plan,
            seed,
            now: 0,
            order: 0,
            events: BinaryHeap::new(),
            machines: (0..plan.machines).map(|_| Machine::default()).collect(),
            semaphore,
            changed: 1,
            revision: 1,
            queue: BTreeMap::new(),
            alive: HashSet::new(),
            watching_all: HashSet::new(),
            watching: HashMap::new(),
            outcome: Outcome::default(),
            seen: None,
        };
        for machine in 0..plan.machines {
            // They look at the channel at different times.
            let when = world.random() % 60_000;
            world.at(when, machine, Doing::Look);
        }
        world
    }

    fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn at(&mut self, after: Time, machine: usize, doing: Doing) {
        self.order += 1;
        self.events.push(Reverse((self.now + after, self.order, machine, doing)));
    }

    /// One way to etcd and back: 4 to 60 ms.
    fn latency(&mut self) -> Time {
        4 + self.random() % 56
    }

    fn wake(&mut self, who: Vec<usize>) {
        for machine in who {
            self.machines[machine].waits = None;
            let after = self.latency();
            self.at(after, machine, Doing::Look);
        }
    }

    fn something_changed(&mut self) {
        self.revision += 1;
        self.seen = None;
        let who: Vec<usize> = self.watching_all.drain().collect();
        let mut who = who;
        who.sort_unstable();
        self.wake(who);
    }

    fn leaves_queue(&mut self, machine: usize) {
        let Some(place) = self.machines[machine].queued.take() else { return };
        self.queue.remove(&place);
        self.seen = None;
        let mut who: Vec<usize> = self.watching.remove(&machine).unwrap_or_default().into_iter().collect();
        who.sort_unstable();
        self.wake(who);
    }

    /// What is to be seen; kept until something changes.
    fn snapshot(&mut self) -> Rc<Snapshot> {
        if let Some(seen) = &self.seen {
            return seen.clone();
        }
        let seen = Rc::new(Snapshot {
            semaphore: self.semaphore.clone(),
            changed: self.changed,
            revision: self.revision,
            waiting: self.queue.values().take(WAITERS).map(ToString::to_string).collect(),
            alive: self.alive.iter().map(ToString::to_string).collect(),
        });
        self.seen = Some(seen.clone());
        seen
    }

    fn holder(&self, machine: usize) -> Holder {
        Holder {
            id: machine.to_string(),
            token: self.machines[machine].token.clone(),
            since: 0,
            reason: String::new(),
            from: None,
            to: Some("1.1".into()),
            deadline: None,
            failure: None,
        }
    }

    fn look(&mut self, machine: usize) {
        self.outcome.reads += 1;
        if self.machines[machine].token.is_empty() {
            self.machines[machine].token = self.random().to_string();
        }
        let seen = self.snapshot();
        match attempt(&seen, &self.holder(machine), true, 0) {
            Attempt::Take(change) => {
                self.machines[machine].change = Some(*change);
                let after = self.latency();
                self.at(after, machine, Doing::Commit);
            }
            Attempt::Have => unreachable!("it knows what it has"),
            Attempt::Wait(ashlar_lock::Refusal::Stopped { .. }) => {
                self.outcome.stopped = true;
                self.leaves_queue(machine);
            }
            Attempt::Wait(_) | Attempt::Behind => {
                if self.machines[machine].queued.is_none() {
                    let after = self.latency();
                    self.at(after, machine, Doing::Enqueue);
                    return;
                }
                let on = watch(&seen, &machine.to_string());
                match &on {
                    Watch::All => drop(self.watching_all.insert(machine)),
                    Watch::Waiter(id) => {
                        self.watching.entry(id.parse().unwrap()).or_default().insert(machine);
                    }
                }
                self.machines[machine].waits = Some(on);
                if self.random() % 1000 < self.plan.dying_waiting {
                    // Its lease runs out.
                    self.machines[machine].dead = true;
                    self.at(90_000, machine, Doing::Gone);
                }
            }
        }
    }

    /// Makes a change if nothing else was faster.
    fn commit(&mut self, machine: usize) {
        let change = self.machines[machine].change.take().unwrap();
        let gone = change.gone.iter().any(|id| self.alive.contains(&id.parse::<usize>().unwrap()));
        if change.from != self.changed || gone {
            self.outcome.conflicts += 1;
            let after = self.latency() + self.random() % 100;
            self.at(after, machine, Doing::Look);
            return;
        }
        self.semaphore = change.semaphore;
        self.changed = self.revision + 1;
        self.alive.insert(machine);
        self.leaves_queue(machine);
        self.something_changed();
        let now = self.semaphore.holders.len();
        assert!(now <= self.plan.places as usize, "{now} holders");
        self.outcome.most = self.outcome.most.max(now);
        // 60 to 180 seconds until it is back.
        let long = 60_000 + self.random() % 120_000;
        if self.random() % 1000 < self.plan.dying_holding {
            self.machines[machine].dead = true;
            self.outcome.work.push(3_600_000);
            self.at(3_600_000, machine, Doing::Gone);
            return;
        }
        let fails = self.random() % 1000 < self.plan.failing;
        let mending = self.plan.mending.filter(|_| fails).unwrap_or(0) * 1000;
        self.outcome.work.push(long + mending);
        self.at(long, machine, if fails { Doing::Failed } else { Doing::Back });
    }

    /// Somebody changes the semaphore who need not wait.
    fn change(&mut self, change: impl FnOnce(&mut Semaphore)) {
        change(&mut self.semaphore);
        self.changed = self.revision + 1;
        self.something_changed();
    }

    fn run(mut self) -> Outcome {
        while let Some(Reverse((time, _, machine, doing))) = self.events.pop() {
            self.now = time;
            let id = machine.to_string();
            let token = self.machines[machine].token.clone();
            match doing {
                Doing::Look | Doing::Enqueue | Doing::Commit if self.machines[machine].dead => {}
                Doing::Look => self.look(machine),
                Doing::Commit => self.commit(machine),
                Doing::Enqueue => {
                    if self.queue.len() < WAITERS {
                        self.seen = None;
                    }
                    self.order += 1;
                    let place = self.order;
                    self.machines[machine].queued = Some(place);
                    self.queue.insert(place, machine);
                    let after = self.latency();
                    self.at(after, machine, Doing::Look);
                }
                Doing::Back | Doing::Mended => {
                    self.change(|semaphore| {
                        semaphore.unlock(&id, Some(&token), doing == Doing::Back, "", 0).unwrap();
                    });
                    self.alive.remove(&machine);
                    self.seen = None;
                    self.machines[machine].done = true;
                    self.outcome.done += 1;
                    self.outcome.took = time;
                }
                Doing::Failed => {
                    self.outcome.failed += 1;
                    self.change(|semaphore| {
                        semaphore.fail(&id, &token, "it does not answer", 0).unwrap();
                    });
                    if let Some(seconds) = self.plan.mending {
                        self.at(seconds * 1000, machine, Doing::Mended);
                    }
                }
                Doing::Gone => {
                    // A holder: the next that wants a place frees it.
                    self.alive.remove(&machine);
                    self.leaves_queue(machine);
                    self.something_changed();
                    self.outcome.done += 1;
                    self.outcome.took = time;
                }
            }
        }
        self.outcome
    }
}

fn seed() -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        u64::from(time.subsec_nanos())
    });
    eprintln!("SEED={seed}");
    seed
}

#[test]
fn ten_thousand_machines_in_nearly_the_best_time() {
    let plan = Plan {
        machines: 10_000,
        places: 100,
        failing: 5,
        dying_waiting: 0,
        dying_holding: 0,
        gate: None,
        mending: Some(1800),
    };
    let outcome = World::new(plan, seed()).run();
    let ideal = outcome.ideal(plan.places);
    eprintln!(
        "{} s, at best {} s: {:.4}; {} failed, {} reads, {} conflicts",
        outcome.took / 1000,
        ideal / 1000,
        outcome.took as f64 / ideal as f64,
        outcome.failed,
        outcome.reads,
        outcome.conflicts
    );
    assert_eq!(outcome.done, plan.machines, "all have been served");
    assert_eq!(outcome.most, plan.places as usize);
    assert!(outcome.failed > 10);
    assert!(outcome.took as f64 <= ideal as f64 * 1.05, "{} of {ideal}", outcome.took);
    // Nobody looks all the time: a few looks for each place that is taken, for each of those that wait.
    assert!(outcome.reads < 400 * plan.machines as u64, "{} reads", outcome.reads);
}

#[test]
fn machines_that_die_while_they_wait_or_hold_stop_nobody() {
    let plan = Plan {
        machines: 1000,
        places: 20,
        failing: 0,
        dying_waiting: 1,
        dying_holding: 10,
        gate: None,
        mending: None,
    };
    let outcome = World::new(plan, seed()).run();
    assert_eq!(outcome.done, plan.machines);
    assert!(outcome.most <= plan.places as usize);
}

#[test]
fn a_bad_release_stops() {
    let bad = Plan {
        machines: 2000,
        places: 10,
        failing: 300,
        dying_waiting: 0,
        dying_holding: 0,
        gate: None,
        mending: None,
    };
    // Without a gate: it stops when all places are held by machines that have failed.
    let outcome = World::new(bad, seed()).run();
    assert_eq!((outcome.failed, outcome.stopped), (10, false));
    assert!(outcome.done < 200, "{outcome:?}");
    // With it, and operators that mend and would go on: it stops too, soon after the first that are counted.
    let gated = Plan { gate: Some(Gate { share: 0.1, at_least: 20 }), mending: Some(60), ..bad };
    let outcome = World::new(gated, seed()).run();
    assert!(outcome.stopped && outcome.done < 100, "{outcome:?}");
    // A good release is not stopped by it.
    let good = Plan { failing: 10, ..gated };
    let outcome = World::new(good, seed()).run();
    assert_eq!((outcome.done, outcome.stopped), (good.machines, false), "{outcome:?}");
}
