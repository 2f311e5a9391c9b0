//! The stages of a build as a graph: each runs when what it needs is there, as many at once as may, and one whose
//! result is kept from an earlier build does not run, nor does what only it would have needed.

use crate::error::BuildError;
use crate::timings::{Span, Timings};
use std::any::Any;
use std::marker::PhantomData;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

/// What a stage makes: shared between threads and kept to the end of the build.
type Output = Box<dyn Any + Send + Sync>;
type Work<'a> = Box<dyn Fn(&Results) -> Result<Output, BuildError> + Send + Sync + 'a>;
type Restore<'a> = Box<dyn Fn() -> Result<Option<Output>, BuildError> + Send + Sync + 'a>;

/// Names the result of a stage.
#[derive(Debug)]
pub struct Handle<T> {
    index: usize,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Handle<T> {}

impl<T> Handle<T> {
    /// The stage, for a list of what another one needs.
    pub fn id(self) -> StageId {
        StageId(self.index)
    }
}

/// A stage in a list of needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageId(usize);

/// The results so far.
pub struct Results(Vec<OnceLock<Output>>);

impl std::fmt::Debug for Results {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let there = self.0.iter().filter(|result| result.get().is_some()).count();
        write!(f, "Results({there} of {})", self.0.len())
    }
}

impl Results {
    /// The result of a stage that was named as a need, or that [`Graph::run`] was asked for.
    ///
    /// # Panics
    /// When the stage was not among the needs: a fault of the program, which the first build shows.
    pub fn get<T: Send + Sync + 'static>(&self, handle: Handle<T>) -> &T {
        let result = self.0.get(handle.index).and_then(OnceLock::get).and_then(|any| any.downcast_ref());
        match result {
            Some(result) => result,
            None => unreachable!("a stage used the result of stage {} and did not name it", handle.index),
        }
    }
}

struct Stage<'a> {
    name: &'static str,
    needs: Vec<StageId>,
    restore: Option<Restore<'a>>,
    work: Work<'a>,
}

/// Stages that were told, in an order in which needs come first.
#[derive(Default)]
pub struct Graph<'a> {
    stages: Vec<Stage<'a>>,
}

/// What a stage is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nobody has asked for it.
    Idle,
    /// Asked for; a kept result is to be tried first.
    Wanted,
    /// Asked for, and no kept result is to be had: runs when its needs are there.
    Waiting,
    /// On a thread.
    Running,
    /// Its result is there.
    Done,
}

/// What the threads share.
struct Board {
    states: Vec<State>,
    running: usize,
    error: Option<BuildError>,
}

/// What a thread does next.
enum Next {
    Restore(usize),
    Work(usize),
    Wait,
    Finished,
}

impl<'a> Graph<'a> {
    fn add<T: Send + Sync + 'static>(
        &mut self,
        name: &'static str,
        needs: &[StageId],
        restore: Option<Restore<'a>>,
        work: impl Fn(&Results) -> Result<T, BuildError> + Send + Sync + 'a,
    ) -> Handle<T> {
        let work = move |results: &Results| Ok(Box::new(work(results)?) as Output);
        self.stages.push(Stage { name, needs: needs.to_vec(), restore, work: Box::new(work) });
        Handle { index: self.stages.len() - 1, of: PhantomData }
    }

    /// Tells of a stage that runs whenever it is needed.
    pub fn stage<T: Send + Sync + 'static>(
        &mut self,
        name: &'static str,
        needs: &[StageId],
        work: impl Fn(&Results) -> Result<T, BuildError> + Send + Sync + 'a,
    ) -> Handle<T> {
        self.add(name, needs, None, work)
    }

    /// Tells of a stage that is asked first whether its result is kept: `restore` gives it, or nothing.
    pub fn kept_stage<T: Send + Sync + 'static>(
        &mut self,
        name: &'static str,
        needs: &[StageId],
        restore: impl Fn() -> Result<Option<T>, BuildError> + Send + Sync + 'a,
        work: impl Fn(&Results) -> Result<T, BuildError> + Send + Sync + 'a,
    ) -> Handle<T> {
        let restore = move || Ok(restore()?.map(|result| Box::new(result) as Output));
        self.add(name, needs, Some(Box::new(restore)), work)
    }

    /// Runs what `wanted` need, on at most `jobs` threads.
    ///
    /// # Errors
    /// The first error; what runs then is brought to its end, nothing new begins.
    pub fn run(&self, wanted: &[StageId], jobs: usize, timings: &Timings) -> Result<Results, BuildError> {
        let results = Results(self.stages.iter().map(|_| OnceLock::new()).collect());
        let mut states = vec![State::Idle; self.stages.len()];
        for id in wanted {
            self.want(&mut states, *id);
        }
        let board = Arc::new((Mutex::new(Board { states, running: 0, error: None }), Condvar::new()));
        std::thread::scope(|scope| {
            let threads = jobs.clamp(1, self.stages.len().max(1));
            // One of them is this thread: with one job everything runs here.
            for number in 1..threads {
                let (board, results) = (Arc::clone(&board), &results);
                scope.spawn(move || self.serve(&board, results, timings, number));
            }
            self.serve(&board, &results, timings, 0);
        });
        let error = lock(&board.0).error.take();
        error.map_or(Ok(results), Err)
    }

    /// Marks a stage as asked for. What it needs is asked for once it is known that it has to run.
    fn want(&self, states: &mut [State], id: StageId) {
        let (Some(state), Some(stage)) = (states.get_mut(id.0), self.stages.get(id.0)) else { return };
        if *state != State::Idle {
            return;
        }
        if stage.restore.is_some() {
            *state = State::Wanted;
        } else {
            *state = State::Waiting;
            self.want_needs(states, id.0);
        }
    }

    fn want_needs(&self, states: &mut [State], index: usize) {
        for need in self.stages.get(index).map_or(&[][..], |stage| &stage.needs) {
            self.want(states, *need);
        }
    }

    fn next(&self, board: &mut Board) -> Next {
        if board.error.is_some() {
            return Next::Finished;
        }
        let ready = |index: usize| {
            let needs = self.stages.get(index).map_or(&[][..], |stage| &stage.needs);
            needs.iter().all(|need| board.states.get(need.0) == Some(&State::Done))
        };
        let found = board.states.iter().enumerate().find_map(|(index, state)| match state {
            State::Wanted => Some(Next::Restore(index)),
            State::Waiting if ready(index) => Some(Next::Work(index)),
            _ => None,
        });
        if let Some(next) = found {
            if let Next::Restore(index) | Next::Work(index) = next {
                board.states[index] = State::Running;
                board.running += 1;
            }
            return next;
        }
        if board.running == 0 { Next::Finished } else { Next::Wait }
    }

    /// Runs stages until there is nothing left to begin.
    fn serve(&self, board: &(Mutex<Board>, Condvar), results: &Results, timings: &Timings, thread: usize) {
        let mut guard = lock(&board.0);
        loop {
            match self.next(&mut guard) {
                Next::Finished => {
                    board.1.notify_all();
                    return;
                }
                Next::Wait => {
                    guard = board.1.wait(guard).unwrap_or_else(PoisonError::into_inner);
                }
                Next::Restore(index) => {
                    drop(guard);
                    let restored = self.timed(index, timings, thread, true, |stage| match &stage.restore {
                        Some(restore) => restore(),
                        None => Ok(None),
                    });
                    guard = lock(&board.0);
                    guard.running -= 1;
                    match restored {
                        Ok(Some(result)) => finish(&mut guard, results, index, result),
                        Ok(None) => {
                            guard.states[index] = State::Waiting;
                            self.want_needs(&mut guard.states, index);
                        }
                        Err(error) => fail(&mut guard, error),
                    }
                    board.1.notify_all();
                }
                Next::Work(index) => {
                    drop(guard);
                    let done =
                        self.timed(index, timings, thread, false, |stage| (stage.work)(results).map(Some));
                    guard = lock(&board.0);
                    guard.running -= 1;
                    match done {
                        Ok(Some(result)) => finish(&mut guard, results, index, result),
                        Ok(None) => {}
                        Err(error) => fail(&mut guard, error),
                    }
                    board.1.notify_all();
                }
            }
        }
    }

    fn timed(
        &self,
        index: usize,
        timings: &Timings,
        thread: usize,
        restoring: bool,
        run: impl FnOnce(&Stage<'a>) -> Result<Option<Output>, BuildError>,
    ) -> Result<Option<Output>, BuildError> {
        let Some(stage) = self.stages.get(index) else { return Ok(None) };
        let span = Span::begin(stage.name, thread);
        let result = run(stage);
        // A look for a kept result that found none is not worth a row.
        if !restoring || matches!(result, Ok(Some(_))) {
            timings.add(&span.end(restoring));
        }
        result
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn finish(board: &mut Board, results: &Results, index: usize, result: Output) {
    if let Some(place) = results.0.get(index) {
        // Each stage runs once.
        let _ = place.set(result);
    }
    board.states[index] = State::Done;
}

fn fail(board: &mut Board, error: BuildError) {
    board.error.get_or_insert(error);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn run(graph: &Graph<'_>, wanted: &[StageId], jobs: usize) -> (Result<Results, BuildError>, Vec<String>) {
        let timings = Timings::start();
        let result = graph.run(wanted, jobs, &timings);
        let names = timings.stages().iter().map(|stage| stage.name.to_owned()).collect();
        (result, names)
    }

    #[test]
    fn needs_run_first_each_once_whatever_the_number_of_threads() {
        for jobs in [1, 2, 8] {
            let runs = AtomicUsize::new(0);
            let mut graph = Graph::default();
            let one = graph.stage("one", &[], |_| {
                runs.fetch_add(1, Ordering::SeqCst);
                Ok(1_u32)
            });
            let two = graph.stage("two", &[one.id()], move |results| Ok(results.get(one) + 1));
            let ten = graph.stage("ten", &[one.id()], move |results| Ok(results.get(one) * 10));
            let sum = graph
                .stage("sum", &[two.id(), ten.id()], move |results| Ok(results.get(two) + results.get(ten)));
            let unused = graph.stage("unused", &[], |_| Ok(runs.fetch_add(100, Ordering::SeqCst)));
            let (results, names) = run(&graph, &[sum.id()], jobs);
            assert_eq!(*results.unwrap().get(sum), 12);
            assert_eq!(runs.load(Ordering::SeqCst), 1);
            assert_eq!((names[0].as_str(), names.len()), ("one", 4));
            assert_eq!(unused.id(), StageId(4));
        }
    }

    #[test]
    fn a_kept_result_spares_what_only_it_needs() {
        for (kept, expected) in [(Some(7_u32), vec!["kept", "end"]), (None, vec!["far", "kept", "end"])] {
            let mut graph = Graph::default();
            let far = graph.stage("far", &[], |_| Ok(1_u32));
            let near = graph.kept_stage(
                "kept",
                &[far.id()],
                move || Ok(kept),
                move |results| Ok(results.get(far) + 1),
            );
            let end = graph.stage("end", &[near.id()], move |results| Ok(*results.get(near)));
            let (results, names) = run(&graph, &[end.id()], 2);
            assert_eq!(*results.unwrap().get(end), kept.unwrap_or(2));
            assert_eq!(names, expected);
        }
    }

    #[test]
    fn after_an_error_nothing_new_begins() {
        let later = AtomicUsize::new(0);
        let mut graph = Graph::default();
        let bad = graph.stage::<u32>("bad", &[], |_| Err(BuildError::NoPhase));
        let after = graph.stage("after", &[bad.id()], |_| Ok(later.fetch_add(1, Ordering::SeqCst)));
        let (result, _) = run(&graph, &[after.id()], 4);
        assert!(matches!(result, Err(BuildError::NoPhase)));
        assert_eq!(later.load(Ordering::SeqCst), 0);
    }
}
