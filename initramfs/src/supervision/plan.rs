//! In which order units start and stop: what each waits for, as a pure state machine over all of them.

use super::unit::{Action, Event, Rules, Unit};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long something must run before it counts as started.
const MOMENT: Duration = Duration::from_secs(2);

/// A unit as the manifest describes it.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its name.
    pub name: String,
    /// What holds for it.
    pub rules: Rules,
    /// What is started before it.
    pub after: Vec<String>,
    /// What it cannot do without.
    pub requires: Vec<String>,
    /// Whether it is to run.
    pub enabled: bool,
}

#[derive(Debug, Clone)]
struct Node {
    name: String,
    unit: Unit,
    /// Numbers of the units that are started before it.
    after: Vec<usize>,
    /// Numbers of those that it cannot do without.
    requires: Vec<usize>,
    /// Whether it is to run.
    wanted: bool,
    /// Whether it is to be stopped and started again.
    bounce: bool,
}

/// All units.
#[derive(Debug, Clone)]
pub struct Plan {
    nodes: Vec<Node>,
    /// Numbers of all units, each behind those that it waits for.
    order: Vec<usize>,
    ending: bool,
}

impl Plan {
    /// A plan of `items`, and what is wrong with them: names that nobody has, circles. The builder refuses both; here
    /// such a dependency is left out, because a machine that starts less well is better than one that does not.
    pub fn new(items: Vec<Item>, now: Duration) -> (Self, Vec<String>) {
        let numbers: BTreeMap<String, usize> =
            items.iter().enumerate().map(|(number, item)| (item.name.clone(), number)).collect();
        let mut faults = Vec::new();
        let mut nodes: Vec<Node> = Vec::with_capacity(items.len());
        for item in items {
            let mut find = |names: &[String]| -> Vec<usize> {
                let mut found = Vec::new();
                for needed in names {
                    match numbers.get(needed) {
                        Some(number) => found.push(*number),
                        None => faults
                            .push(format!("{} waits for {needed}, which is not in the image", item.name)),
                    }
                }
                found
            };
            nodes.push(Node {
                after: find(&item.after),
                requires: find(&item.requires),
                unit: Unit::new(item.rules, item.enabled, now),
                name: item.name,
                wanted: item.enabled,
                bounce: false,
            });
        }
        let order = order(&mut nodes, &mut faults);
        (Self { nodes, order, ending: false }, faults)
    }

    /// How many units there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The number of the unit with this name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == name)
    }

    /// A unit's state.
    pub fn unit(&self, index: usize) -> Option<&Unit> {
        self.nodes.get(index).map(|node| &node.unit)
    }

    /// Whether a unit is to run.
    pub fn is_wanted(&self, index: usize) -> bool {
        self.nodes.get(index).is_some_and(|node| node.wanted)
    }

    /// Gives an event that has happened to a unit.
    pub fn event(&mut self, index: usize, event: Event, now: Duration) -> Option<Action> {
        let node = self.nodes.get_mut(index)?;
        let (unit, action) = node.unit.clone().step(event, now);
        node.unit = unit;
        action
    }

    /// It is to run.
    pub fn start(&mut self, index: usize, now: Duration) {
        if let Some(node) = self.nodes.get_mut(index)
            && !self.ending
        {
            node.wanted = true;
            self.event(index, Event::Start, now);
        }
    }

    /// It is to run no more. What cannot do without it is stopped before.
    pub fn stop(&mut self, index: usize) {
        if let Some(node) = self.nodes.get_mut(index) {
            node.wanted = false;
            node.bounce = false;
        }
    }

    /// It is to stop and to start again, and what cannot do without it as well.
    pub fn restart(&mut self, index: usize, now: Duration) {
        let Some(node) = self.nodes.get_mut(index) else { return };
        if node.unit.is_up() && !self.ending {
            node.wanted = true;
            node.bounce = true;
        } else {
            self.start(index, now);
        }
    }

    /// Everything is to stop for good.
    pub fn stop_all(&mut self) {
        self.ending = true;
    }

    /// Whether nothing runs and nothing will be started.
    pub fn is_over(&self) -> bool {
        self.nodes.iter().all(|node| !node.unit.is_running())
            && (self.ending || self.nodes.iter().all(|node| node.unit.is_over()))
    }

    /// The next thing to do now; none if there is nothing more until something happens or [`Self::deadline`].
    pub fn next(&mut self, now: Duration) -> Option<(usize, Action)> {
        let down = self.down();
        // What runs into a limit of time.
        for index in 0..self.nodes.len() {
            let due = self.unit(index).and_then(|unit| unit.deadline(false)).is_some_and(|due| due <= now);
            if due && let Some(action) = self.event(index, Event::Tick { may_start: false }, now) {
                return Some((index, action));
            }
        }
        // What must stop: the last first.
        for index in self.order.clone().into_iter().rev() {
            if !down.get(index).copied().unwrap_or_default() || self.holds_up(index, &down) {
                continue;
            }
            let Some(node) = self.nodes.get_mut(index) else { continue };
            let for_good = self.ending || !node.wanted;
            let event = if for_good { Event::Stop } else { Event::Restart };
            node.bounce = false;
            if (node.unit.is_up() || (for_good && !node.unit.is_over()))
                && let Some(action) = self.event(index, event, now)
            {
                return Some((index, action));
            }
        }
        // What may start: the first first.
        let down = self.down();
        for index in self.order.clone() {
            let due = self.unit(index).and_then(|unit| unit.deadline(true)).is_some_and(|due| due <= now);
            if due
                && self.may_start(index, &down)
                && let Some(action) = self.event(index, Event::Tick { may_start: true }, now)
            {
                return Some((index, action));
            }
        }
        None
    }

    /// When [`Self::next`] has something to do though nothing has happened.
    pub fn deadline(&self) -> Option<Duration> {
        let down = self.down();
        let due = |index: usize| self.unit(index)?.deadline(self.may_start(index, &down));
        (0..self.nodes.len()).filter_map(due).min()
    }

    /// Which units must not run now: those that nobody wants, those that are to start anew, and what cannot do
    /// without them.
    fn down(&self) -> Vec<bool> {
        let mut down = vec![self.ending; self.nodes.len()];
        for index in &self.order {
            if let Some(node) = self.nodes.get(*index) {
                let without =
                    node.requires.iter().any(|needed| down.get(*needed).copied().unwrap_or_default());
                if let Some(down) = down.get_mut(*index) {
                    *down |= !node.wanted || node.bounce || without;
                }
            }
        }
        down
    }

    /// Whether something that stops before `index` has not stopped yet.
    fn holds_up(&self, index: usize, down: &[bool]) -> bool {
        self.nodes.iter().zip(down).any(|(node, down)| {
            *down && node.unit.is_running() && (node.after.contains(&index) || node.requires.contains(&index))
        })
    }

    fn may_start(&self, index: usize, down: &[bool]) -> bool {
        !down.get(index).copied().unwrap_or(true) && self.missing(index).next().is_none()
    }

    /// Numbers of the units that `index` waits for.
    fn missing(&self, index: usize) -> impl Iterator<Item = usize> {
        let node = self.nodes.get(index);
        let required = node.into_iter().flat_map(|node| &node.requires);
        let required = required.filter(|needed| !self.unit(**needed).is_some_and(Unit::is_ready));
        let before = node.into_iter().flat_map(|node| &node.after);
        // What has been tried once holds nobody up.
        let before = before.filter(|needed| {
            self.unit(**needed)
                .is_some_and(|unit| !unit.is_ready() && !unit.is_over() && unit.last_exit.is_none())
        });
        required.chain(before).copied()
    }

    /// Whether the first start of everything is behind it. What waits for something that has settled without being
    /// ready has settled as well.
    pub fn has_settled(&self, now: Duration) -> bool {
        self.settled(now).into_iter().all(|settled| settled)
    }

    /// Names of those whose first start is not behind them.
    pub fn unsettled(&self, now: Duration) -> Vec<String> {
        let settled = self.settled(now).into_iter();
        let all = self.nodes.iter().zip(settled);
        all.filter(|(_, settled)| !settled).map(|(node, _)| node.name.clone()).collect()
    }

    fn settled(&self, now: Duration) -> Vec<bool> {
        let mut settled = vec![false; self.nodes.len()];
        for index in &self.order {
            let Some(unit) = self.unit(*index) else { continue };
            let stuck = || {
                let mut missing = self.missing(*index).peekable();
                missing.peek().is_some()
                    && missing.all(|needed| settled.get(needed).copied().unwrap_or_default())
            };
            let this = unit.has_settled(now, MOMENT) || (!unit.is_running() && stuck());
            if let Some(settled) = settled.get_mut(*index) {
                *settled = this;
            }
        }
        settled
    }

    /// What is wrong with each unit, for people; none if nothing is.
    pub fn problems(&self, now: Duration) -> Vec<Option<String>> {
        let mut problems: Vec<Option<String>> = vec![None; self.nodes.len()];
        for index in &self.order {
            let found = self.unit(*index).and_then(|unit| {
                unit.problem(now).or_else(|| {
                    if unit.is_running() || unit.is_over() {
                        return None;
                    }
                    // What is on its way is no problem.
                    let names: Vec<&str> = self
                        .missing(*index)
                        .filter(|needed| {
                            self.unit(*needed).is_some_and(Unit::is_over)
                                || problems.get(*needed).is_some_and(Option::is_some)
                        })
                        .filter_map(|needed| self.nodes.get(needed).map(|node| node.name.as_str()))
                        .collect();
                    (!names.is_empty()).then(|| format!("waits for {}", names.join(", ")))
                })
            });
            if let Some(problem) = problems.get_mut(*index) {
                *problem = found;
            }
        }
        problems
    }
}

/// Puts all units behind those that they wait for. Where that cannot be, a unit of the circle loses what it waits for
/// in it.
fn order(nodes: &mut [Node], faults: &mut Vec<String>) -> Vec<usize> {
    let mut order = Vec::with_capacity(nodes.len());
    let mut placed = vec![false; nodes.len()];
    while order.len() < nodes.len() {
        let is_placed = |needed: &usize, placed: &[bool]| placed.get(*needed).copied().unwrap_or(true);
        let before = order.len();
        for (index, node) in nodes.iter().enumerate() {
            let ready = node.after.iter().chain(&node.requires).all(|needed| is_placed(needed, &placed));
            if ready && let Some(placed) = placed.get_mut(index).filter(|placed| !**placed) {
                *placed = true;
                order.push(index);
            }
        }
        if order.len() > before {
            continue;
        }
        // All that are left are in a circle or behind one. The one that fewest things hold up goes first.
        let rest = nodes.iter_mut().enumerate().filter(|(index, _)| !is_placed(index, &placed));
        let waits = |node: &Node| {
            node.after.iter().chain(&node.requires).filter(|needed| !is_placed(needed, &placed)).count()
        };
        let Some((_, node)) = rest.min_by_key(|(_, node)| waits(node)) else { break };
        node.after.retain(|needed| is_placed(needed, &placed));
        node.requires.retain(|needed| is_placed(needed, &placed));
        faults.push(format!("{} is part of a circle of dependencies and does not wait for it", node.name));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervision::unit::{Exit, State};
    use ashlar_image::manifest::{Readiness, Restart, Supervision};
    use ashlar_image::report::ServicePhase;
    use proptest::prelude::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn item(name: &str, after: &[&str], requires: &[&str], ready: Readiness) -> Item {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Item {
            name: name.into(),
            rules: Rules::new(Restart::Always, &Supervision { ready, ..Default::default() }),
            after: names(after),
            requires: names(requires),
            enabled: true,
        }
    }

    fn plan(items: Vec<Item>) -> Plan {
        let (plan, faults) = Plan::new(items, at(0));
        assert!(faults.is_empty(), "{faults:?}");
        plan
    }

    /// All that is to be done now, by name.
    fn run(plan: &mut Plan, now: Duration) -> Vec<(&'static str, Action)> {
        std::iter::from_fn(|| plan.next(now))
            .map(|(index, action)| (["db", "web", "log"][index], action))
            .collect()
    }

    fn problem(plan: &Plan, index: usize, now: Duration) -> Option<String> {
        plan.problems(now).swap_remove(index)
    }

    fn three() -> Plan {
        plan(vec![
            item("db", &[], &[], Readiness::Notify),
            item("web", &[], &["db"], Readiness::Started),
            item("log", &["web"], &[], Readiness::Started),
        ])
    }

    #[test]
    fn units_start_behind_what_they_wait_for_and_stop_before_it() {
        let mut plan = three();
        assert_eq!(run(&mut plan, at(0)), [("db", Action::Start)]);
        assert_eq!(plan.deadline(), Some(at(60)), "only the time in which it must be ready");
        assert!(!plan.has_settled(at(9)));
        assert_eq!(plan.unsettled(at(9)), ["db", "web", "log"]);
        assert_eq!(plan.event(0, Event::Ready, at(3)), None);
        assert_eq!(run(&mut plan, at(3)), [("web", Action::Start), ("log", Action::Start)]);
        assert!(!plan.has_settled(at(4)) && plan.has_settled(at(5)));

        plan.stop_all();
        assert_eq!(run(&mut plan, at(10)), [("log", Action::Terminate)]);
        plan.event(2, Event::Ended(Exit::Status(0)), at(11));
        assert_eq!(run(&mut plan, at(11)), [("web", Action::Terminate)]);
        plan.event(1, Event::Ended(Exit::Status(0)), at(12));
        assert!(!plan.is_over());
        assert_eq!(run(&mut plan, at(12)), [("db", Action::Terminate)]);
        assert_eq!(run(&mut plan, at(22)), [("db", Action::Kill)]);
        plan.event(0, Event::Ended(Exit::Signal(9)), at(22));
        assert!(run(&mut plan, at(23)).is_empty() && plan.is_over());
        plan.start(0, at(30));
        assert!(run(&mut plan, at(30)).is_empty(), "nothing starts on a machine that ends");
    }

    #[test]
    fn what_cannot_do_without_another_goes_and_comes_with_it() {
        let mut plan = three();
        run(&mut plan, at(0));
        plan.event(0, Event::Ready, at(1));
        run(&mut plan, at(1));
        plan.stop(0);
        assert_eq!(run(&mut plan, at(10)), [("web", Action::Terminate)], "log only came after it");
        plan.event(1, Event::Ended(Exit::Signal(15)), at(11));
        assert_eq!(run(&mut plan, at(11)), [("db", Action::Terminate)]);
        plan.event(0, Event::Ended(Exit::Signal(15)), at(12));
        assert!(run(&mut plan, at(100)).is_empty());
        assert_eq!(plan.unit(0).unwrap().state, State::Off);
        assert_eq!(problem(&plan, 0, at(100)), None, "somebody wants it so");
        assert!(
            problem(&plan, 1, at(700)).unwrap().contains("waits for db"),
            "{:?}",
            problem(&plan, 1, at(700))
        );
        assert!(!plan.is_over());

        plan.start(0, at(800));
        assert_eq!(run(&mut plan, at(800)), [("db", Action::Start)]);
        plan.event(0, Event::Ready, at(801));
        assert_eq!(run(&mut plan, at(801)), [("web", Action::Start)]);

        plan.restart(0, at(900));
        assert_eq!(run(&mut plan, at(900)), [("web", Action::Terminate)]);
        plan.event(1, Event::Ended(Exit::Signal(15)), at(901));
        assert_eq!(run(&mut plan, at(901)), [("db", Action::Terminate)]);
        plan.event(0, Event::Ended(Exit::Signal(15)), at(902));
        assert_eq!(run(&mut plan, at(902)), [("db", Action::Start)]);
        plan.event(0, Event::Ready, at(903));
        assert_eq!(run(&mut plan, at(903)), [("web", Action::Start)]);
    }

    #[test]
    fn a_failure_of_another_stops_nobody_but_nobody_starts_without_it() {
        let mut plan = three();
        run(&mut plan, at(0));
        // It ends before it was ready: `web` needs it and waits on, `log` has only come after `web`.
        plan.event(0, Event::Ended(Exit::Status(1)), at(1));
        assert!(run(&mut plan, at(1)).is_empty());
        assert!(problem(&plan, 0, at(1)).unwrap().contains("exit status 1"));
        assert_eq!(problem(&plan, 1, at(1)).unwrap(), "waits for db");
        assert_eq!(problem(&plan, 2, at(1)).unwrap(), "waits for web");
        assert!(plan.has_settled(at(1)), "it will not become better by itself");
        assert_eq!(run(&mut plan, at(2)), [("db", Action::Start)]);
        plan.event(0, Event::Ready, at(3));
        assert_eq!(run(&mut plan, at(3)).len(), 2);
        plan.event(0, Event::Ended(Exit::Signal(11)), at(4));
        assert!(run(&mut plan, at(4)).is_empty());
        assert_eq!(plan.unit(1).unwrap().phase(), ServicePhase::Running);
    }

    #[test]
    fn circles_and_unknown_names_are_told_and_left_out() {
        let started = Readiness::Started;
        let (mut plan, faults) = Plan::new(
            vec![
                item("db", &[], &["web"], started.clone()),
                item("web", &["log"], &[], started.clone()),
                item("log", &["db"], &["gone"], started),
            ],
            at(0),
        );
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].contains("log waits for gone") && faults[1].contains("circle"), "{faults:?}");
        assert_eq!(run(&mut plan, at(0)).len(), 3);
    }

    proptest! {
        /// Any units with any dependencies and any history: nothing starts twice without an end, or before what it
        /// needs is ready; nothing is asked to stop before what depends on it has ended, unless it failed by itself;
        /// after `stop_all` everything ends in bounded time.
        #[test]
        fn any_plan(
            edges in proptest::collection::vec((0usize..6, 0usize..6, any::<bool>()), 0..14),
            waits in proptest::collection::vec(any::<bool>(), 6),
            history in proptest::collection::vec((0u8..8, 0usize..6, 0u64..20), 1..120),
        ) {
            let mut items: Vec<Item> = (0..6)
                .map(|n| item(&n.to_string(), &[], &[], if waits[n] { Readiness::Notify } else { Readiness::Started }))
                .collect();
            for (from, to, required) in edges {
                let names = if required { &mut items[from].requires } else { &mut items[from].after };
                names.push(to.to_string());
            }
            let (mut plan, _) = Plan::new(items, at(0));
            prop_assert_eq!(plan.order.len(), 6);
            let mut now = at(0);
            let mut alive = [false; 6];
            for (what, index, passed) in history.into_iter().chain((0..40).map(|_| (8, 0, 30))) {
                now += at(passed);
                match what {
                    0 | 1 if alive[index] => {
                        alive[index] = false;
                        plan.event(index, Event::Ended(Exit::Status(what.into())), now);
                    }
                    2 => { plan.event(index, Event::Ready, now); }
                    3 => plan.start(index, now),
                    4 => plan.stop(index),
                    5 => plan.restart(index, now),
                    8 => plan.stop_all(),
                    _ => {}
                }
                let mut steps = 0;
                while let Some((index, action)) = plan.next(now) {
                    steps += 1;
                    prop_assert!(steps < 100, "it never comes to rest");
                    match action {
                        Action::Start => {
                            prop_assert!(!alive[index] && !plan.ending && plan.nodes[index].wanted);
                            for needed in &plan.nodes[index].requires {
                                prop_assert!(plan.nodes[*needed].unit.is_ready());
                            }
                            alive[index] = true;
                        }
                        Action::Terminate => {
                            prop_assert!(alive[index]);
                            let by_itself = matches!(
                                plan.nodes[index].unit.state,
                                State::Stopping { next: crate::supervision::unit::Next::Failure, .. }
                            );
                            for (other, node) in plan.nodes.iter().enumerate() {
                                prop_assert!(by_itself || !alive[other] || !node.requires.contains(&index));
                            }
                        }
                        Action::Kill => {
                            // What is killed ends.
                            prop_assert!(alive[index]);
                            alive[index] = false;
                            plan.event(index, Event::Ended(Exit::Signal(9)), now);
                        }
                    }
                }
                for (index, alive) in alive.iter().enumerate() {
                    prop_assert_eq!(plan.nodes[index].unit.is_running(), *alive);
                }
                prop_assert!(plan.deadline().is_none_or(|deadline| deadline > now), "a loop without rest");
            }
            prop_assert!(plan.is_over(), "{:?}", plan);
        }
    }
}
