//! The semaphore of a group: who is down, and how many may be. Pure.

use serde::{Deserialize, Serialize};

/// Version of the form that is written; a later one is not changed by this program.
pub const VERSION: u32 = 1;
/// Most places of a group.
pub const MAX_PLACES: u32 = 10_000;
/// Releases whose results are kept; the oldest go.
const MAX_RELEASES: usize = 16;
/// Longest text that is kept, in characters.
const MAX_TEXT: usize = 500;

/// What is stored under the group's key `semaphore`, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Semaphore {
    /// [`VERSION`].
    pub version: u32,
    /// How many may be down at once; at least 1.
    pub max: u32,
    /// Who is, in the order of coming.
    #[serde(default)]
    pub holders: Vec<Holder>,
    /// What becomes of a holder whose machine is gone; it stays for ever without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale: Option<Stale>,
    /// When a release is stopped; never without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,
    /// How releases went, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<Outcomes>,
    /// Number of changes so far; the events of the history have these numbers.
    #[serde(default)]
    pub changes: u64,
}

/// One that is down, or about to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its machine ID.
    pub id: String,
    /// Chosen at random by who took the place: another one means that the place was freed meanwhile and taken anew.
    pub token: String,
    /// Since when, seconds since 1970 by the holder's clock.
    pub since: i64,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The release that it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The release that it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// When it wants to be back, seconds since 1970 by the holder's clock. For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<i64>,
    /// Why it has failed: it keeps its place, so that a bad release stops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// What becomes of a holder whose machine is gone. That it is gone is what etcd says: the holder's lease has run out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stale {
    /// How long it may be silent, in seconds.
    pub after: u32,
    /// Whether the next that wants its place frees it; else an operator does (`lockctl unlock`).
    pub automatic: bool,
}

/// Stops a release.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    /// The share of machines that may fail, 0 to 1; more stop the release.
    pub share: f64,
    /// Not before so many machines have tried it.
    pub at_least: u32,
}

// A share is compared as it was written.
impl Eq for Gate {}

/// How a release went in the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    /// The release.
    pub release: String,
    /// Machines on which it was found good.
    pub good: u32,
    /// Machines on which it failed.
    pub failed: u32,
    /// Why no machine gets a place for it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
}

/// Something that happened to the semaphore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, seconds since 1970 by the clock of who did it.
    pub time: i64,
    /// `locked`, `unlocked`, `failed`, `freed`, `stopped`, `resumed`, `max`, `stale`, `gate`.
    pub what: String,
    /// The holder that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// More, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// Why there is no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// All places are taken.
    #[error("semaphore is at 0")]
    Full,
    /// The gate has stopped the release.
    #[error("release {release} is stopped in this group: {reason}")]
    Stopped {
        /// The release.
        release: String,
        /// Why.
        reason: String,
    },
    /// Who asks holds none.
    #[error("holder does not exist")]
    NotHeld,
    /// The place was freed and perhaps taken anew since.
    #[error("the place was freed meanwhile and taken anew")]
    Another,
    /// Not a number of places.
    #[error("max must be from 1 to {MAX_PLACES}, not {0}")]
    Max(u32),
    /// Nothing to be resumed.
    #[error("no release is stopped")]
    NotStopped,
    /// A setting that makes no sense.
    #[error("{0}")]
    Setting(&'static str),
}

/// At most [`MAX_TEXT`] characters.
fn bounded(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

impl Default for Semaphore {
    fn default() -> Self {
        Self {
            version: VERSION,
            max: 1,
            holders: Vec::new(),
            stale: None,
            gate: None,
            results: Vec::new(),
            changes: 0,
        }
    }
}

impl Semaphore {
    /// How many places are free.
    #[must_use]
    pub fn available(&self) -> u32 {
        self.max.saturating_sub(u32::try_from(self.holders.len()).unwrap_or(u32::MAX))
    }

    /// The place of `id`.
    #[must_use]
    pub fn holder(&self, id: &str) -> Option<&Holder> {
        self.holders.iter().find(|holder| holder.id == id)
    }

    fn changed(&mut self, time: i64, what: &str, id: Option<&str>, detail: &str) -> Event {
        self.changes = self.changes.saturating_add(1);
        Event { time, what: what.into(), id: id.map(str::to_owned), detail: bounded(detail) }
    }

    /// Why a machine that goes to `release` gets no place, though one be free.
    fn stopped(&self, release: Option<&str>) -> Option<Refusal> {
        let outcomes = self.results.iter().find(|outcomes| Some(outcomes.release.as_str()) == release)?;
        let reason = outcomes.stopped.clone()?;
        Some(Refusal::Stopped { release: outcomes.release.clone(), reason })
    }

    /// Takes a place. Who has one already keeps it: its entry is replaced by the new one, with the time of the first.
    ///
    /// # Errors
    /// [`Refusal::Full`], [`Refusal::Stopped`].
    pub fn lock(&mut self, mut holder: Holder, time: i64) -> Result<Event, Refusal> {
        if let Some(refusal) = self.stopped(holder.to.as_deref()) {
            return Err(refusal);
        }
        holder.reason = bounded(&holder.reason);
        let (id, reason) = (holder.id.clone(), holder.reason.clone());
        if let Some(own) = self.holders.iter_mut().find(|own| own.id == id) {
            holder.since = own.since;
            *own = holder;
            return Ok(self.changed(time, "locked", Some(&id), &format!("again: {reason}")));
        }
        if self.available() == 0 {
            return Err(Refusal::Full);
        }
        self.holders.push(holder);
        Ok(self.changed(time, "locked", Some(&id), &reason))
    }

    fn remove(&mut self, id: &str, token: Option<&str>) -> Result<Holder, Refusal> {
        let place = self.holders.iter().position(|holder| holder.id == id).ok_or(Refusal::NotHeld)?;
        if token.is_some_and(|token| self.holders[place].token != token) {
            return Err(Refusal::Another);
        }
        Ok(self.holders.remove(place))
    }

    /// Gives a place back. With `token`, only the one that was taken with it. `good` tells whether the release that it was
    /// taken for has been found good.
    ///
    /// # Errors
    /// [`Refusal::NotHeld`], [`Refusal::Another`].
    pub fn unlock(
        &mut self,
        id: &str,
        token: Option<&str>,
        good: bool,
        by: &str,
        time: i64,
    ) -> Result<Event, Refusal> {
        let holder = self.remove(id, token)?;
        if good && let Some(release) = &holder.to {
            self.count(release, true);
        }
        Ok(self.changed(time, "unlocked", Some(id), by))
    }

    /// Frees the place of a machine that is gone.
    ///
    /// # Errors
    /// [`Refusal::NotHeld`], [`Refusal::Another`].
    pub fn free(&mut self, id: &str, token: &str, by: &str, time: i64) -> Result<Event, Refusal> {
        let holder = self.remove(id, Some(token))?;
        let silent = self.stale.map_or(0, |stale| stale.after);
        let detail = format!(
            "by {by}: silent for {silent} s or more, held since {} for: {}",
            holder.since, holder.reason
        );
        Ok(self.changed(time, "freed", Some(id), &detail))
    }

    fn count(&mut self, release: &str, good: bool) -> &mut Outcomes {
        let place =
            self.results.iter().position(|outcomes| outcomes.release == release).unwrap_or_else(|| {
                let surplus = (self.results.len() + 1).saturating_sub(MAX_RELEASES);
                self.results.drain(..surplus);
                self.results.push(Outcomes { release: bounded(release), good: 0, failed: 0, stopped: None });
                self.results.len() - 1
            });
        let outcomes = &mut self.results[place];
        let counter = if good { &mut outcomes.good } else { &mut outcomes.failed };
        *counter = counter.saturating_add(1);
        outcomes
    }

    /// Notes that the release that a place was taken for has failed there. The place stays taken. None if that is known.
    ///
    /// # Errors
    /// [`Refusal::NotHeld`], [`Refusal::Another`].
    pub fn fail(&mut self, id: &str, token: &str, reason: &str, time: i64) -> Result<Option<Event>, Refusal> {
        let gate = self.gate;
        let holder = self.holders.iter_mut().find(|holder| holder.id == id).ok_or(Refusal::NotHeld)?;
        if holder.token != token {
            return Err(Refusal::Another);
        }
        if holder.failure.is_some() {
            return Ok(None);
        }
        holder.failure = Some(bounded(reason));
        let mut detail = reason.to_owned();
        if let Some(release) = holder.to.clone() {
            detail = format!("release {release}: {detail}");
            let outcomes = self.count(&release, false);
            let tried = outcomes.good.saturating_add(outcomes.failed);
            if let Some(gate) = gate
                && outcomes.stopped.is_none()
                && tried >= gate.at_least
                && f64::from(outcomes.failed) > gate.share * f64::from(tried)
            {
                let text = format!("{} of {tried} machines have failed", outcomes.failed);
                detail = format!("{detail}; the release is stopped: {text}");
                outcomes.stopped = Some(text);
            }
        }
        Ok(Some(self.changed(time, "failed", Some(id), &detail)))
    }

    /// Lets machines have places for a stopped release again, or for all; their counts begin anew.
    ///
    /// # Errors
    /// [`Refusal::NotStopped`].
    pub fn resume(&mut self, release: Option<&str>, time: i64) -> Result<Event, Refusal> {
        let mut resumed = Vec::new();
        for outcomes in &mut self.results {
            if outcomes.stopped.is_some() && release.is_none_or(|release| release == outcomes.release) {
                (outcomes.stopped, outcomes.good, outcomes.failed) = (None, 0, 0);
                resumed.push(outcomes.release.clone());
            }
        }
        if resumed.is_empty() {
            return Err(Refusal::NotStopped);
        }
        Ok(self.changed(time, "resumed", None, &resumed.join(", ")))
    }

    /// Sets how many may be down. Who is down stays so: with fewer places than holders, none is free.
    ///
    /// # Errors
    /// [`Refusal::Max`].
    pub fn set_max(&mut self, max: u32, time: i64) -> Result<Event, Refusal> {
        if !(1..=MAX_PLACES).contains(&max) {
            return Err(Refusal::Max(max));
        }
        let old = std::mem::replace(&mut self.max, max);
        Ok(self.changed(time, "max", None, &format!("{old} to {max}")))
    }

    /// Sets what becomes of holders whose machines are gone.
    ///
    /// # Errors
    /// [`Refusal::Setting`].
    pub fn set_stale(&mut self, stale: Option<Stale>, time: i64) -> Result<Event, Refusal> {
        if stale.is_some_and(|stale| !(60..=30 * 86_400).contains(&stale.after)) {
            return Err(Refusal::Setting("a holder may be silent for 60 seconds to 30 days"));
        }
        self.stale = stale;
        let detail = match stale {
            None => "never".to_owned(),
            Some(Stale { after, automatic: true }) => format!("after {after} s, by itself"),
            Some(Stale { after, automatic: false }) => format!("after {after} s, by an operator"),
        };
        Ok(self.changed(time, "stale", None, &detail))
    }

    /// Sets when a release is stopped.
    ///
    /// # Errors
    /// [`Refusal::Setting`].
    pub fn set_gate(&mut self, gate: Option<Gate>, time: i64) -> Result<Event, Refusal> {
        if gate.is_some_and(|gate| !(0.0..1.0).contains(&gate.share) || gate.at_least == 0) {
            return Err(Refusal::Setting("a gate has a share from 0 to less than 1, and at least 1 machine"));
        }
        self.gate = gate;
        let detail = gate.map_or_else(
            || "off".to_owned(),
            |gate| format!("more than {} of at least {}", gate.share, gate.at_least),
        );
        Ok(self.changed(time, "gate", None, &detail))
    }

    /// Reads what is stored.
    ///
    /// # Errors
    /// A text for people: damaged, of a later version, or with values that it cannot have.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let semaphore: Self =
            serde_json::from_slice(bytes).map_err(|error| format!("it is damaged: {error}"))?;
        if semaphore.version != VERSION {
            return Err(format!("it has version {}; this program knows {VERSION}", semaphore.version));
        }
        if !(1..=MAX_PLACES).contains(&semaphore.max) {
            return Err(Refusal::Max(semaphore.max).to_string());
        }
        let mut ids: Vec<&str> = semaphore.holders.iter().map(|holder| holder.id.as_str()).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("it is damaged: a holder is there twice".into());
        }
        Ok(semaphore)
    }
}
