//! Semaphores in etcd, version 3 of its API (3.4 and later).
//!
//! Keys of a group, below [`names::PREFIX`](crate::names::PREFIX): `semaphore`; `waiting/ID` of those that wait, with a lease,
//! ordered by etcd's create revision; `alive/ID` of holders, with a lease; `history/NUMBER`.
//!
//! The crate's balancer keeps trying members that are gone, so there is one connection to one member, and the next member's turn
//! when it does not answer. Names are resolved by us: a static program has no name service switch.

use crate::attempt::Watch;
use crate::names::{Group, HolderId};
use crate::semaphore::{Event, Semaphore};
use crate::store::{Change, Snapshot, Store, StoreError, WAITERS};
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, DeleteOptions, Error, GetOptions, Identity,
    PutOptions, SortOrder, SortTarget, TlsOptions, Txn, TxnOp, TxnOpResponse, WatchOptions,
};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Longest time for one member to answer a question.
const MEMBER: Duration = Duration::from_secs(4);
/// Longest time for all members together.
const ALL: Duration = Duration::from_secs(15);
/// Events that are kept.
const HISTORY: u64 = 500;
/// gRPC: the member or the majority is not there.
const TRANSIENT: [i32; 5] = [1, 4, 10, 13, 14];
/// gRPC: the token has run out.
const UNAUTHENTICATED: i32 = 16;

/// How etcd is reached.
#[derive(Clone, Default)]
pub struct EtcdOptions {
    /// Addresses of members, `https://HOST:2379` or `http://…`; one at least.
    pub endpoints: Vec<String>,
    /// Authorities that sign the members' certificates, in PEM.
    pub ca: Option<String>,
    /// The client's certificate (chain) and its key, in PEM.
    pub identity: Option<(String, String)>,
    /// Name and password, where etcd asks for them.
    pub user: Option<(String, String)>,
}

impl fmt::Debug for EtcdOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdOptions").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

/// A member's address.
#[derive(Debug, Clone)]
struct Endpoint {
    secure: bool,
    host: String,
    port: u16,
}

impl Endpoint {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no address of an etcd member: https://HOST:2379 is wanted");
        let (secure, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            _ => return Err(wrong()),
        };
        let rest = rest.trim_end_matches('/');
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| wrong())?),
            _ => (rest, 2379),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || host.contains(['/', '@', '?', '#']) {
            return Err(wrong());
        }
        Ok(Self { secure, host: host.to_owned(), port })
    }

    /// With addresses instead of the name.
    fn addresses(&self) -> Result<Vec<String>, String> {
        let scheme = if self.secure { "https" } else { "http" };
        Ok(ashlar_fetch::lookup(&self.host, MEMBER)?
            .into_iter()
            .map(|address| format!("{scheme}://{}", std::net::SocketAddr::new(address, self.port)))
            .collect())
    }
}

/// A connection to etcd.
pub struct Etcd {
    runtime: Runtime,
    endpoints: Vec<Endpoint>,
    options: EtcdOptions,
    /// Counts on when a member does not answer: its remainder is whose turn it is, its quotient which of the addresses.
    turn: usize,
    client: Option<Client>,
    /// Leases by their keys, to be renewed instead of made anew.
    leases: BTreeMap<String, i64>,
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Whether another member, or the same one a moment later, may say something else.
enum Trouble {
    Passing(String),
    Token,
    Final(StoreError),
}

fn trouble(error: &Error) -> Trouble {
    match error {
        Error::GRpcStatus(status) => {
            let (code, text) = (status.code() as i32, status.message().to_owned());
            let lower = text.to_ascii_lowercase();
            // etcd before 3.6 says "invalid auth token" with code 16, and "user name is empty" where a token is missing.
            if code == UNAUTHENTICATED || lower.contains("auth token") {
                Trouble::Token
            } else if TRANSIENT.contains(&code) || (code == 2 && !lower.contains("permission")) {
                Trouble::Passing(text)
            } else {
                Trouble::Final(StoreError::Refused(text))
            }
        }
        Error::InvalidArgs(_)
        | Error::InvalidUri(_)
        | Error::Utf8Error(_)
        | Error::InvalidMetadataValue(_) => Trouble::Final(StoreError::Refused(error.to_string())),
        Error::TransportError(inner) => {
            // The reason is what a person needs: "certificate has expired" is not in the outermost text.
            let mut text = inner.to_string();
            let mut source = std::error::Error::source(inner);
            while let Some(deeper) = source {
                text = deeper.to_string();
                source = deeper.source();
            }
            Trouble::Passing(text)
        }
        other => Trouble::Passing(other.to_string()),
    }
}

/// One way to ask, as often as members are tried.
type Answer<'a, T> = std::pin::Pin<Box<dyn Future<Output = Result<T, Error>> + 'a>>;

impl Etcd {
    /// Does not connect yet.
    ///
    /// # Errors
    /// A text for people about the options.
    pub fn new(options: EtcdOptions) -> Result<Self, String> {
        let endpoints =
            options.endpoints.iter().map(|text| Endpoint::parse(text)).collect::<Result<Vec<_>, _>>()?;
        if endpoints.is_empty() {
            return Err("no etcd member is named: https://HOST:2379".into());
        }
        let secret = options.identity.is_some() || options.user.is_some() || options.ca.is_some();
        if let Some(plain) = endpoints.iter().find(|endpoint| !endpoint.secure && secret) {
            return Err(format!(
                "`http://{}:{}` is not encrypted: no certificate and no password is used there",
                plain.host, plain.port
            ));
        }
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        let turn = usize::from(getrandom::u32().unwrap_or(0) as u16) % endpoints.len();
        Ok(Self { runtime, endpoints, options, turn, client: None, leases: BTreeMap::new() })
    }

    fn connect(&mut self) -> Result<Client, Trouble> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let endpoint = self.member();
        let addresses = endpoint.addresses().map_err(|reason| {
            Trouble::Passing(format!("the name `{}` cannot be resolved: {reason}", endpoint.host))
        })?;
        // One at a time: the crate's balancer gives an error for each that does not answer.
        let address = addresses.get(self.turn / self.endpoints.len() % addresses.len().max(1)).cloned();
        let address = address.ok_or_else(|| Trouble::Passing("its name has no address".into()))?;
        let mut options = ConnectOptions::new()
            .with_connect_timeout(MEMBER)
            .with_require_leader(true)
            .with_keep_alive(Duration::from_secs(5), Duration::from_secs(5))
            .with_keep_alive_while_idle(false);
        if let Some((name, password)) = &self.options.user {
            options = options.with_user(name, password);
        }
        if endpoint.secure {
            let mut tls = TlsOptions::new().domain_name(endpoint.host.clone());
            if let Some(ca) = &self.options.ca {
                tls = tls.ca_certificate(Certificate::from_pem(ca));
            }
            if let Some((certificate, key)) = &self.options.identity {
                tls = tls.identity(Identity::from_pem(certificate, key));
            }
            options = options.with_tls(tls);
        }
        let connected = self.runtime.block_on(async {
            tokio::time::timeout(MEMBER, Client::connect([address], Some(options))).await
        });
        match connected {
            Err(_) => Err(Trouble::Passing("it does not answer in time".into())),
            Ok(Err(error)) => Err(match trouble(&error) {
                Trouble::Token => Trouble::Final(StoreError::Refused(error.to_string())),
                other => other,
            }),
            Ok(Ok(client)) => {
                self.client = Some(client.clone());
                Ok(client)
            }
        }
    }

    fn member(&self) -> &Endpoint {
        &self.endpoints[self.turn % self.endpoints.len()]
    }

    fn next_member(&mut self) {
        self.client = None;
        self.turn = self.turn.wrapping_add(1);
    }

    /// Asks one member after the other.
    fn ask<T>(&mut self, question: impl Fn(Client) -> Answer<'static, T>) -> Result<T, StoreError> {
        let until = Instant::now() + ALL;
        let mut renewed = false;
        let mut reasons: Vec<String> = Vec::new();
        for turn in 0..self.endpoints.len() * 2 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let result = self.connect().and_then(|client| {
                let answer = self
                    .runtime
                    .block_on(async { tokio::time::timeout(MEMBER.min(left), question(client)).await });
                match answer {
                    Err(_) => Err(Trouble::Passing("it does not answer in time".into())),
                    Ok(Err(error)) => Err(trouble(&error)),
                    Ok(Ok(answer)) => Ok(answer),
                }
            });
            match result {
                Ok(answer) => return Ok(answer),
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Token) if renewed => {
                    return Err(StoreError::Refused(
                        "it does not know this client: look at user and password".into(),
                    ));
                }
                Err(Trouble::Token) => {
                    // A token lives for minutes; connecting gives a new one.
                    renewed = true;
                    self.client = None;
                }
                Err(Trouble::Passing(reason)) => {
                    let endpoint = self.member();
                    let text = format!("{}:{}: {reason}", endpoint.host, endpoint.port);
                    if !reasons.contains(&text) {
                        reasons.push(text);
                    }
                    self.next_member();
                    if turn + 1 >= self.endpoints.len() {
                        std::thread::sleep(Duration::from_millis(200).min(left));
                    }
                }
            }
        }
        if reasons.is_empty() {
            reasons.push("no member was reached".into());
        }
        Err(StoreError::Unavailable(reasons.join("; ")))
    }

    fn transact(&mut self, txn: Txn) -> Result<etcd_client::TxnResponse, StoreError> {
        self.ask(move |mut client| {
            let txn = txn.clone();
            Box::pin(async move { client.txn(txn).await })
        })
    }

    /// Puts a key whose lease runs for `ttl` from now; one that is there keeps its create revision.
    fn put_with_lease(&mut self, key: String, ttl: Duration) -> Result<(), StoreError> {
        let seconds = i64::try_from(ttl.as_secs().max(2)).unwrap_or(i64::MAX);
        if let Some(lease) = self.leases.get(&key).copied() {
            let wanted = key.clone();
            // Renewed, and still with the key.
            let renewed = self.ask(move |mut client| {
                let key = wanted.clone();
                Box::pin(async move {
                    let (mut keeper, mut answers) = client.lease_keep_alive(lease).await?;
                    keeper.keep_alive().await?;
                    let left = answers.message().await?.map_or(0, |answer| answer.ttl());
                    let there = client.get(key, None).await?;
                    Ok(left > 0 && there.kvs().first().is_some_and(|kv| kv.lease() == lease))
                })
            });
            if renewed? {
                return Ok(());
            }
            self.leases.remove(&key);
        }
        let wanted = key.clone();
        let lease = self.ask(move |mut client| {
            let key = wanted.clone();
            Box::pin(async move {
                let lease = client.lease_grant(seconds, None).await?.id();
                client.put(key, "", Some(PutOptions::new().with_lease(lease))).await?;
                Ok(lease)
            })
        })?;
        self.leases.insert(key, lease);
        Ok(())
    }

    fn delete(&mut self, key: String) -> Result<(), StoreError> {
        self.leases.remove(&key);
        self.ask(move |mut client| {
            let key = key.clone();
            Box::pin(async move { client.delete(key, None).await.map(drop) })
        })
    }
}

/// The last segment of a key.
fn name(key: &[u8]) -> String {
    let text = String::from_utf8_lossy(key);
    text.rsplit('/').next().unwrap_or_default().to_owned()
}

impl Store for Etcd {
    fn read(&mut self, group: &Group) -> Result<Snapshot, StoreError> {
        let key = group.key("semaphore");
        let queue = GetOptions::new()
            .with_prefix()
            .with_keys_only()
            .with_sort(SortTarget::Create, SortOrder::Ascend)
            .with_limit(i64::try_from(WAITERS).unwrap_or(i64::MAX));
        let alive = GetOptions::new().with_prefix().with_keys_only();
        let txn = Txn::new().and_then([
            TxnOp::get(key, None),
            TxnOp::get(group.key("waiting/"), Some(queue)),
            TxnOp::get(group.key("alive/"), Some(alive)),
        ]);
        let answer = self.transact(txn)?;
        let mut seen = Snapshot {
            revision: answer.header().map_or(0, etcd_client::ResponseHeader::revision),
            ..Snapshot::default()
        };
        for (number, response) in answer.op_responses().into_iter().enumerate() {
            let TxnOpResponse::Get(get) = response else { continue };
            match number {
                0 => {
                    if let Some(kv) = get.kvs().first() {
                        seen.changed = kv.mod_revision();
                        seen.semaphore = Semaphore::parse(kv.value())
                            .map_err(|problem| StoreError::Damaged { group: group.to_string(), problem })?;
                    }
                }
                1 => seen.waiting = get.kvs().iter().map(|kv| name(kv.key())).collect(),
                _ => seen.alive = get.kvs().iter().map(|kv| name(kv.key())).collect(),
            }
        }
        Ok(seen)
    }

    fn commit(&mut self, group: &Group, change: &Change) -> Result<Option<i64>, StoreError> {
        let key = group.key("semaphore");
        let fail = |error: serde_json::Error| StoreError::Refused(error.to_string());
        let mut compares = vec![Compare::mod_revision(key.clone(), CompareOp::Equal, change.from)];
        let mut operations =
            vec![TxnOp::put(key, serde_json::to_vec(&change.semaphore).map_err(fail)?, None)];
        for id in &change.gone {
            compares.push(Compare::create_revision(group.key(&format!("alive/{id}")), CompareOp::Equal, 0));
        }
        if let Some(id) = &change.served {
            let key = group.key(&format!("waiting/{id}"));
            self.leases.remove(&key);
            operations.push(TxnOp::delete(key, None));
        }
        let first = change.semaphore.changes.saturating_sub(change.events.len().saturating_sub(1) as u64);
        for (number, event) in (first..).zip(&change.events) {
            let key = group.key(&format!("history/{number:020}"));
            operations.push(TxnOp::put(key, serde_json::to_vec(event).map_err(fail)?, None));
        }
        if let Some(last) = change.semaphore.changes.checked_sub(HISTORY) {
            let range = DeleteOptions::new()
                .with_range(group.key(&format!("history/{:020}", last.saturating_add(1))));
            operations.push(TxnOp::delete(group.key(&format!("history/{:020}", 0)), Some(range)));
        }
        let txn = Txn::new().when(compares).and_then(operations);
        // Asked once: a second time could not tell a first one that was made from another's.
        let answer = self.ask_once(txn)?;
        let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
        Ok(answer.succeeded().then_some(revision))
    }

    fn enqueue(&mut self, group: &Group, id: &HolderId, ttl: Duration) -> Result<(), StoreError> {
        self.put_with_lease(group.key(&format!("waiting/{id}")), ttl)
    }

    fn leave(&mut self, group: &Group, id: &HolderId) -> Result<(), StoreError> {
        self.delete(group.key(&format!("waiting/{id}")))
    }

    fn keep_alive(&mut self, group: &Group, id: &HolderId, ttl: Duration) -> Result<(), StoreError> {
        self.put_with_lease(group.key(&format!("alive/{id}")), ttl)
    }

    fn wait(
        &mut self,
        group: &Group,
        watch: &Watch,
        revision: i64,
        timeout: Duration,
    ) -> Result<bool, StoreError> {
        let (key, queue) = match watch {
            Watch::All => (group.key("semaphore"), Some(group.key("waiting/"))),
            Watch::Waiter(id) => (group.key(&format!("waiting/{id}")), None),
        };
        let mut client = match self.connect() {
            Ok(client) => client,
            Err(Trouble::Final(error)) => return Err(error),
            Err(Trouble::Passing(reason)) => {
                self.next_member();
                return Err(StoreError::Unavailable(reason));
            }
            Err(Trouble::Token) => return Err(StoreError::Refused("it does not know this client".into())),
        };
        let from = revision.saturating_add(1);
        let result = self.runtime.block_on(async {
            tokio::time::timeout(timeout, async {
                let options = || WatchOptions::new().with_start_revision(from);
                let mut first = client.watch(key, Some(options())).await?;
                let mut second = match queue {
                    Some(queue) => Some(client.watch(queue, Some(options().with_prefix())).await?),
                    None => None,
                };
                loop {
                    let message = tokio::select! {
                        message = first.message() => message?,
                        message = async { match &mut second {
                            Some(second) => second.message().await,
                            None => std::future::pending().await,
                        } } => message?,
                    };
                    // A watch that is cancelled (compaction, a lost leader) tells nothing more: look again.
                    let Some(message) = message else { return Ok::<_, Error>(()) };
                    if message.canceled() || message.compact_revision() > 0 || !message.events().is_empty() {
                        return Ok(());
                    }
                }
            })
            .await
        });
        match result {
            Err(_) => Ok(false),
            Ok(Ok(())) => Ok(true),
            Ok(Err(error)) => {
                self.next_member();
                Err(match trouble(&error) {
                    Trouble::Passing(reason) => StoreError::Unavailable(reason),
                    Trouble::Token => StoreError::Unavailable("the token has run out".into()),
                    Trouble::Final(error) => error,
                })
            }
        }
    }

    fn history(&mut self, group: &Group) -> Result<Vec<(u64, Event)>, StoreError> {
        let key = group.key("history/");
        let answer = self.ask(move |mut client| {
            let options =
                GetOptions::new().with_prefix().with_limit(i64::try_from(HISTORY).unwrap_or(i64::MAX));
            let key = key.clone();
            Box::pin(async move { client.get(key, Some(options)).await })
        })?;
        let mut events = Vec::new();
        for kv in answer.kvs() {
            let event = serde_json::from_slice(kv.value()).map_err(|error| StoreError::Damaged {
                group: group.to_string(),
                problem: format!("its history is damaged: {error}"),
            })?;
            events.push((name(kv.key()).parse().unwrap_or(0), event));
        }
        Ok(events)
    }
}

impl Etcd {
    /// Asks one member, once; only a member that was not reached at all is passed over.
    fn ask_once(&mut self, txn: Txn) -> Result<etcd_client::TxnResponse, StoreError> {
        let mut client = None;
        for _ in 0..self.endpoints.len() {
            match self.connect() {
                Ok(connected) => {
                    client = Some(connected);
                    break;
                }
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Passing(_) | Trouble::Token) => self.next_member(),
            }
        }
        let mut client = client.ok_or_else(|| StoreError::Unavailable("no member is reached".into()))?;
        let answer = self.runtime.block_on(async { tokio::time::timeout(MEMBER, client.txn(txn)).await });
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Err(_) => {
                self.next_member();
                Err(StoreError::Unavailable("it does not answer in time".into()))
            }
            Ok(Err(error)) => match trouble(&error) {
                Trouble::Final(error) => Err(error),
                Trouble::Passing(reason) => {
                    self.next_member();
                    Err(StoreError::Unavailable(reason))
                }
                Trouble::Token => {
                    self.client = None;
                    Err(StoreError::Unavailable("the token has run out".into()))
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_members() {
        for (text, secure, host, port) in [
            ("https://a.example:2379", true, "a.example", 2379),
            ("http://127.0.0.1:1/", false, "127.0.0.1", 1),
            ("https://a", true, "a", 2379),
            ("https://[::1]:7", true, "::1", 7),
            ("https://[::1]", true, "::1", 2379),
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!(
                (endpoint.secure, endpoint.host.as_str(), endpoint.port),
                (secure, host, port),
                "{text}"
            );
        }
        for bad in [
            "",
            "a:2379",
            "ftp://a",
            "https://",
            "https://a:x",
            "https://a/b",
            "https://u@a",
            "https://a:99999",
        ] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn secrets_are_not_sent_in_the_clear() {
        let options = EtcdOptions {
            endpoints: vec!["http://127.0.0.1:2379".into()],
            user: Some(("a".into(), "b".into())),
            ..EtcdOptions::default()
        };
        assert!(Etcd::new(options.clone()).unwrap_err().contains("not encrypted"));
        assert!(!format!("{options:?}").contains("\"b\""));
        assert!(Etcd::new(EtcdOptions::default()).is_err());
    }
}
