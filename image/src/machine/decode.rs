//! From TOML to the configuration: types, ranges and forms. What keys have to do with each other is in `check`.

use super::network::{Addressing, Bond, BondMode, Dns, Interface, MIIMON, Network, Proxy, Route, Vlan};
use super::reader::{Reader, Table, Value};
use super::settings::{
    Channel, Cluster, Container, Control, DEADLINE, Debug, Health, Hook, LOCK_GROUP, Lock, Log, Time, Update,
    UpdatePolicy, Watchdog, Window,
};
use super::values::{
    Bytes, Certificate, Cidr, Cpus, Day, LinkName, Mac, PublicKey, RootDigest, Seconds, TimeOfDay, TimeZone,
    Timestamp, Url, is_host, is_host_name, is_interface_name,
};
use super::{MachineConfig, names};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Most items of an array that has no smaller limit of its own.
const MANY: usize = 256;
/// Largest serial: TOML's numbers have 63 bits.
const MAX_SERIAL: u64 = i64::MAX as u64;

const A_CIDR: &str = "an address with a prefix, such as `192.0.2.10/24` or `2001:db8::10/64`";
const AN_ADDRESS: &str = "an IPv4 or IPv6 address, such as `192.0.2.1` or `2001:db8::1`";
const AN_INTERFACE: &str =
    "the name of an interface: at most 15 characters, no `/`, `:`, `%` or space, not `lo`";
const A_LINK: &str = "an interface: its name, or its hardware address as `52:54:00:12:34:56`";
const A_NAME: &str =
    "a name: at most 64 lower-case letters, digits, `-`, `_`, `.`, the first neither `.` nor `-`";

fn address(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<IpAddr> {
    reader.parsed(value, AN_ADDRESS, |text| text.parse().ok())
}

fn cidr(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Cidr> {
    reader.parsed(value, A_CIDR, Cidr::parse)
}

fn name(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<String> {
    reader.parsed(value, A_NAME, |text| names::is_name(text).then(|| text.to_owned()))
}

fn seconds(reader: &mut Reader<'_>, value: &Value<'_>, least: Seconds, most: Seconds) -> Option<Seconds> {
    let wanted = format!("a time span from `{least}` to `{most}`, with the unit `s`, `m`, `h` or `d`");
    let fits = |span: &Seconds| (least..=most).contains(span);
    reader.parsed(value, &wanted, |text| Seconds::parse(text).filter(fits))
}

fn bytes(reader: &mut Reader<'_>, value: &Value<'_>, least: Bytes, most: Bytes) -> Option<Bytes> {
    let wanted = format!("a size from `{least}` to `{most}`, with the unit `KiB`, `MiB`, `GiB` or `TiB`");
    let fits = |size: &Bytes| (least..=most).contains(size);
    reader.parsed(value, &wanted, |text| Bytes::parse(text).filter(fits))
}

/// The value of a key, if it is there and can be read.
macro_rules! optional {
    ($table:ident, $reader:ident, $key:literal, $read:expr) => {
        match $table.get($reader, $key) {
            Some(value) => {
                let read = $read;
                read($reader, &value)
            }
            None => None,
        }
    };
}

/// An array, empty when the key is not there.
macro_rules! array {
    ($table:ident, $reader:ident, $key:literal, $most:expr, $read:expr) => {
        match $table.get($reader, $key) {
            Some(value) => $reader.list(&value, $most, $read),
            None => Vec::new(),
        }
    };
}

/// An array of tables, empty when the key is not there.
macro_rules! tables {
    ($table:ident, $reader:ident, $key:literal, $most:expr, $read:expr) => {
        match $table.get($reader, $key) {
            Some(value) => {
                let tables = $reader.tables(&value, $most);
                tables.into_iter().map(|table| $read($reader, table)).collect()
            }
            None => Vec::new(),
        }
    };
}

fn addressing(reader: &mut Reader<'_>, table: &mut Table<'_>) -> Addressing {
    let metric = |reader: &mut Reader<'_>, value: &Value<'_>| reader.integer(value, 1..=u32::MAX.into());
    Addressing {
        dhcp: optional!(table, reader, "dhcp", Reader::boolean).unwrap_or(false),
        router_advertisements: optional!(table, reader, "router-advertisements", Reader::boolean),
        addresses: array!(table, reader, "addresses", 64, cidr),
        gateways: array!(table, reader, "gateways", 2, address),
        metric: optional!(table, reader, "metric", metric),
        routes: tables!(table, reader, "route", MANY, route),
        mtu: optional!(table, reader, "mtu", |r: &mut Reader<'_>, v: &Value<'_>| r.integer(v, 576..=9216)),
    }
}

fn route(reader: &mut Reader<'_>, mut table: Table<'_>) -> Route {
    let to = table.require(reader, "to", "a network such as `10.0.0.0/8`");
    let route = Route {
        // Where it cannot be read, a network that nothing is asked of.
        to: to.and_then(|value| cidr(reader, &value)).unwrap_or(names::NO_NETWORK),
        via: optional!(table, reader, "via", address),
        metric: optional!(table, reader, "metric", |r: &mut Reader<'_>, v: &Value<'_>| r
            .integer(v, 1..=u32::MAX.into())),
    };
    table.finish(reader);
    route
}

fn interface_name(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<String> {
    reader.parsed(value, AN_INTERFACE, |text| is_interface_name(text).then(|| text.to_owned()))
}

fn link(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<LinkName> {
    reader.parsed(value, A_LINK, LinkName::parse)
}

fn interface(reader: &mut Reader<'_>, mut table: Table<'_>) -> Interface {
    let a_mac = "a hardware address such as `52:54:00:12:34:56`";
    let (by_name, by_mac) = (table.get(reader, "name"), table.get(reader, "mac"));
    if by_name.is_some() == by_mac.is_some() {
        reader.refuse(&format!("{}.name", table.path), "give exactly one of `name` and `mac`");
    }
    let interface = Interface {
        name: by_name.and_then(|value| interface_name(reader, &value)),
        mac: by_mac.and_then(|value| reader.parsed(&value, a_mac, Mac::parse)),
        addressing: addressing(reader, &mut table),
    };
    table.finish(reader);
    interface
}

fn vlan(reader: &mut Reader<'_>, mut table: Table<'_>) -> Vlan {
    let name = table.require(reader, "name", AN_INTERFACE);
    let id = table.require(reader, "id", "a whole number from 1 to 4094");
    let parent = table.require(reader, "parent", A_LINK);
    let vlan = Vlan {
        name: name.and_then(|value| interface_name(reader, &value)).unwrap_or_default(),
        id: id.and_then(|value| reader.integer(&value, 1..=4094)).unwrap_or_default(),
        parent: parent
            .and_then(|value| link(reader, &value))
            .unwrap_or_else(|| LinkName::Name(String::new())),
        addressing: addressing(reader, &mut table),
    };
    table.finish(reader);
    vlan
}

fn bond(reader: &mut Reader<'_>, mut table: Table<'_>) -> Bond {
    let name = table.require(reader, "name", AN_INTERFACE);
    let members = table.require(reader, "members", "an array of interfaces");
    let bond = Bond {
        name: name.and_then(|value| interface_name(reader, &value)).unwrap_or_default(),
        mode: optional!(table, reader, "mode", |r: &mut Reader<'_>, v: &Value<'_>| r
            .choice(v, &BondMode::ALL))
        .unwrap_or_default(),
        members: members.map(|value| reader.some(&value, 16, link)).unwrap_or_default(),
        miimon: optional!(table, reader, "miimon", |r: &mut Reader<'_>, v: &Value<'_>| r
            .integer(v, 10..=10_000))
        .unwrap_or(MIIMON),
        addressing: addressing(reader, &mut table),
    };
    table.finish(reader);
    bond
}

fn url(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Url> {
    reader.checked(value, Url::parse)
}

/// A URL without user and password: the configuration is shown to whoever may look at the machine.
fn plain_url(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Url> {
    let without_password = |text: &str| {
        let url = Url::parse(text)?;
        if url.user_info().is_some() { Err("a user or password has no place in it") } else { Ok(url) }
    };
    reader.checked(value, without_password)
}

fn network(reader: &mut Reader<'_>, mut table: Table<'_>) -> Network {
    let network = Network {
        interfaces: tables!(table, reader, "interface", MANY, interface),
        vlans: tables!(table, reader, "vlan", MANY, vlan),
        bonds: tables!(table, reader, "bond", 64, bond),
        dns: table.get(reader, "dns").map(|value| dns(reader, &value)).unwrap_or_default(),
        proxy: table.get(reader, "proxy").map(|value| proxy(reader, &value)).unwrap_or_default(),
    };
    table.finish(reader);
    network
}

fn dns(reader: &mut Reader<'_>, value: &Value<'_>) -> Dns {
    let mut table = reader.table(value);
    let domain = |reader: &mut Reader<'_>, value: &Value<'_>| {
        reader.parsed(value, "a domain such as `example.com`", |text| {
            is_host_name(text).then(|| text.to_owned())
        })
    };
    let dns = Dns {
        servers: array!(table, reader, "servers", 3, address),
        search: array!(table, reader, "search", 6, domain),
    };
    table.finish(reader);
    dns
}

fn proxy(reader: &mut Reader<'_>, value: &Value<'_>) -> Proxy {
    let mut table = reader.table(value);
    let exception = |reader: &mut Reader<'_>, value: &Value<'_>| {
        let wanted = "a host name, a domain such as `.example.com`, an address, a network or `*`";
        let good = |text: &str| {
            text == "*"
                || is_host(text)
                || Cidr::parse(text).is_some()
                || text.strip_prefix('.').is_some_and(is_host_name)
        };
        reader.parsed(value, wanted, |text| good(text).then(|| text.to_owned()))
    };
    let proxy = Proxy {
        http: optional!(table, reader, "http", url),
        https: optional!(table, reader, "https", url),
        no_proxy: array!(table, reader, "no-proxy", MANY, exception),
    };
    table.finish(reader);
    proxy
}

fn time(reader: &mut Reader<'_>, mut table: Table<'_>) -> Time {
    let host = |reader: &mut Reader<'_>, value: &Value<'_>| {
        reader.parsed(value, "a host name or an address", |text| is_host(text).then(|| text.to_owned()))
    };
    let time = Time { servers: array!(table, reader, "servers", 8, host) };
    table.finish(reader);
    time
}

fn control(reader: &mut Reader<'_>, mut table: Table<'_>) -> Control {
    let certificates = |reader: &mut Reader<'_>, value: &Value<'_>| {
        let wanted = "one or more certificates in PEM (`-----BEGIN CERTIFICATE-----` …) and nothing else";
        reader.parsed(value, wanted, Certificate::parse_all)
    };
    let default = Control::default();
    let port = |reader: &mut Reader<'_>, value: &Value<'_>| reader.integer(value, 1..=65_535);
    let control = Control {
        listen: array!(table, reader, "listen", 16, address),
        port: optional!(table, reader, "port", port).unwrap_or(default.port),
        trust_roots: array!(table, reader, "trust-roots", 32, certificates).concat(),
    };
    table.finish(reader);
    control
}

fn cluster(reader: &mut Reader<'_>, mut table: Table<'_>) -> Option<Cluster> {
    let name = table.require(reader, "name", "a label as in host names");
    let endpoints = table.require(reader, "endpoints", "an array of https URLs");
    let a_label = "a label as in host names: at most 63 letters, digits and `-`";
    let name = name.and_then(|value| {
        reader.parsed(&value, a_label, |text| {
            (is_host_name(text) && !text.contains('.')).then(|| text.to_owned())
        })
    });
    let endpoints = endpoints.map(|value| reader.some(&value, 16, plain_url));
    table.finish(reader);
    Some(Cluster { name: name?, endpoints: endpoints? })
}

fn lock(reader: &mut Reader<'_>, mut table: Table<'_>) -> Lock {
    let certificates = |reader: &mut Reader<'_>, value: &Value<'_>| {
        let wanted = "one or more certificates in PEM (`-----BEGIN CERTIFICATE-----` …) and nothing else";
        reader.parsed(value, wanted, Certificate::parse_all)
    };
    let group = |reader: &mut Reader<'_>, value: &Value<'_>| {
        let a_group = "a group: 1 to 128 letters, digits, `.`, `-`, `_` and `/`";
        let good = |text: &str| {
            (1..=128).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_/".contains(&b))
        };
        reader.parsed(value, a_group, |text| good(text).then(|| text.to_owned()))
    };
    let lock = Lock {
        group: optional!(table, reader, "group", group).unwrap_or_else(|| LOCK_GROUP.into()),
        etcd: table.get(reader, "etcd").map(|value| reader.some(&value, 16, plain_url)).unwrap_or_default(),
        fleetlock: optional!(table, reader, "fleetlock", plain_url),
        trust_roots: array!(table, reader, "trust-roots", 32, certificates).concat(),
        certificate: optional!(table, reader, "certificate", certificates).unwrap_or_default(),
    };
    table.finish(reader);
    lock
}

fn channel(reader: &mut Reader<'_>, mut table: Table<'_>) -> Option<Channel> {
    let a_key =
        "an Ed25519 public key in PEM (`-----BEGIN PUBLIC KEY-----` …), as in the key folder's `channel.pub`";
    let place = table.require(reader, "url", "an https URL");
    let title = table.require(reader, "name", A_NAME);
    let place = place.and_then(|value| plain_url(reader, &value));
    let title = title.and_then(|value| name(reader, &value));
    let key_value = table.get(reader, "key");
    let root_value = table.get(reader, "root");
    if key_value.is_some() == root_value.is_some() {
        reader.refuse(&format!("{}.key", table.path), "exactly one of `key` and `root` is wanted");
    }
    let key = key_value.and_then(|value| reader.parsed(&value, a_key, PublicKey::parse));
    let a_digest = "`sha256:` and 64 hexadecimal digits";
    let root = root_value.and_then(|value| reader.parsed(&value, a_digest, RootDigest::parse));
    table.finish(reader);
    Some(Channel { url: place?, name: title?, key, root })
}

fn update(reader: &mut Reader<'_>, mut table: Table<'_>) -> Update {
    let policy = |reader: &mut Reader<'_>, value: &Value<'_>| reader.choice(value, &UpdatePolicy::ALL);
    let windows: Vec<Option<Window>> = tables!(table, reader, "window", 32, window);
    let checks: Vec<Option<Health>> = tables!(table, reader, "health", 16, health);
    let default = Update::default();
    let interval = |r: &mut Reader<'_>, v: &Value<'_>| seconds(r, v, Seconds(60), Seconds(7 * 86_400));
    let jitter = |r: &mut Reader<'_>, v: &Value<'_>| seconds(r, v, Seconds(0), Seconds(86_400));
    let trial = |r: &mut Reader<'_>, v: &Value<'_>| seconds(r, v, Seconds(30), Seconds(3600));
    let bandwidth = |r: &mut Reader<'_>, v: &Value<'_>| bytes(r, v, Bytes(1 << 10), Bytes(1 << 40));
    let connections = |r: &mut Reader<'_>, v: &Value<'_>| r.integer(v, 1..=16);
    let update = Update {
        policy: optional!(table, reader, "policy", policy).unwrap_or_default(),
        check_interval: optional!(table, reader, "check-interval", interval)
            .unwrap_or(default.check_interval),
        jitter: optional!(table, reader, "jitter", jitter).unwrap_or(default.jitter),
        bandwidth: optional!(table, reader, "bandwidth", bandwidth),
        connections: optional!(table, reader, "connections", connections).unwrap_or(default.connections),
        trial_deadline: optional!(table, reader, "trial-deadline", trial).unwrap_or(default.trial_deadline),
        windows: windows.into_iter().flatten().collect(),
        health: checks.into_iter().flatten().collect(),
        pre_reboot: table.get(reader, "pre-reboot").and_then(|value| hook(reader, &value)),
        post_boot: table.get(reader, "post-boot").and_then(|value| hook(reader, &value)),
    };
    table.finish(reader);
    update
}

/// How long a hook or a health check may take.
fn deadline(reader: &mut Reader<'_>, table: &mut Table<'_>) -> Seconds {
    let span = |r: &mut Reader<'_>, v: &Value<'_>| seconds(r, v, Seconds(1), Seconds(1800));
    optional!(table, reader, "deadline", span).unwrap_or(DEADLINE)
}

fn hook(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Hook> {
    let mut table = reader.table(value);
    let container = table.require(reader, "container", A_NAME).and_then(|value| name(reader, &value));
    let deadline = deadline(reader, &mut table);
    table.finish(reader);
    Some(Hook { container: container?, deadline })
}

fn health(reader: &mut Reader<'_>, mut table: Table<'_>) -> Option<Health> {
    let title = table.require(reader, "name", A_NAME).and_then(|value| name(reader, &value));
    let here = |text: &str| {
        let url = Url::parse(text)?;
        let host = url.host_and_port().map(|(host, _)| host.to_owned());
        let local = matches!(host.as_deref(), Some("127.0.0.1" | "::1"));
        if local && !url.is_https() && url.user_info().is_none() {
            Ok(url)
        } else {
            Err("it does not begin with `http://127.0.0.1` or `http://[::1]`")
        }
    };
    let http_value = table.get(reader, "http");
    let container_value = table.get(reader, "container");
    if http_value.is_some() == container_value.is_some() {
        reader.refuse(&format!("{}.http", table.path), "exactly one of `http` and `container` is wanted");
    }
    let http = http_value.and_then(|value| reader.checked(&value, here));
    let container = container_value.and_then(|value| name(reader, &value));
    let deadline = deadline(reader, &mut table);
    table.finish(reader);
    Some(Health { name: title?, http, container, deadline })
}

fn window(reader: &mut Reader<'_>, mut table: Table<'_>) -> Option<Window> {
    let a_time = "a time of the day such as `02:30`";
    let a_zone = "`UTC`, an offset from it such as `+01:00`, or a place such as `Europe/Berlin`";
    let from = table.require(reader, "from", a_time);
    let duration = table.require(reader, "duration", "a time span such as `2h`");
    let day = |reader: &mut Reader<'_>, value: &Value<'_>| reader.choice(value, &Day::ALL);
    let days = array!(table, reader, "days", 7, day);
    let zone = |reader: &mut Reader<'_>, value: &Value<'_>| reader.parsed(value, a_zone, TimeZone::parse);
    let time_zone = optional!(table, reader, "time-zone", zone).unwrap_or_default();
    if days.iter().enumerate().any(|(at, day)| days.iter().take(at).any(|other| other == day)) {
        reader.refuse(&format!("{}.days", table.path), "a day is named twice");
    }
    let from = from.and_then(|value| reader.parsed(&value, a_time, TimeOfDay::parse));
    let duration = duration.and_then(|value| seconds(reader, &value, Seconds(600), Seconds(86_400)));
    table.finish(reader);
    Some(Window { days, from: from?, duration: duration?, time_zone })
}

fn container(reader: &mut Reader<'_>, mut table: Table<'_>) -> Container {
    let title = table.require(reader, "name", A_NAME);
    let environment = table.get(reader, "environment");
    let container = Container {
        name: title.and_then(|value| name(reader, &value)).unwrap_or_default(),
        enabled: optional!(table, reader, "enabled", Reader::boolean).unwrap_or(true),
        environment: environment.map(|value| variables(reader, &value)).unwrap_or_default(),
        memory: optional!(table, reader, "memory", |r: &mut Reader<'_>, v: &Value<'_>| bytes(
            r,
            v,
            Bytes(1 << 20),
            Bytes(64 << 40)
        )),
        cpus: optional!(table, reader, "cpus", |r: &mut Reader<'_>, v: &Value<'_>| r
            .thousandths(v, 10..=1_024_000)
            .map(Cpus)),
        pids: optional!(table, reader, "pids", |r: &mut Reader<'_>, v: &Value<'_>| r
            .integer(v, 1..=4_194_304)),
    };
    table.finish(reader);
    container
}

fn variables(reader: &mut Reader<'_>, value: &Value<'_>) -> BTreeMap<String, String> {
    let all = reader.table(value).all(reader, MANY);
    let mut variables = BTreeMap::new();
    for (key, value) in all {
        if !names::is_variable(key) {
            reader.refuse(&value.path, "names of variables have letters, digits and `_`, the first no digit");
        }
        let a_text = "a text of at most 32768 bytes without NUL";
        let good = |text: &str| (text.len() <= 32_768 && !text.contains('\0')).then(|| text.to_owned());
        if let Some(text) = reader.parsed(&value, a_text, good) {
            variables.insert(key.to_owned(), text);
        }
    }
    variables
}

fn labels(reader: &mut Reader<'_>, value: &Value<'_>) -> BTreeMap<String, String> {
    let all = reader.table(value).all(reader, MANY);
    let mut labels = BTreeMap::new();
    for (key, value) in all {
        if !names::is_label_key(key) {
            let rule = "keys of labels have at most 63 letters, digits, `-`, `_`, `.`, and begin and end with a letter \
                        or digit; before that there may be a domain and `/`";
            reader.refuse(&value.path, rule);
        }
        let a_value = "the value of a label: at most 63 letters, digits, `-`, `_`, `.`, that begins and ends with a \
                       letter or digit, or nothing";
        let good = |text: &str| names::is_label_value(text).then(|| text.to_owned());
        if let Some(text) = reader.parsed(&value, a_value, good) {
            labels.insert(key.to_owned(), text);
        }
    }
    labels
}

fn timestamp(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Timestamp> {
    let whole = reader.datetime(value)?;
    let ((date, time), offset) = whole.date.zip(whole.time).zip(whole.offset)?;
    let offset = match offset {
        toml_datetime::Offset::Z => 0,
        toml_datetime::Offset::Custom { minutes } => minutes,
    };
    let time = (time.hour.into(), time.minute.into(), time.second.unwrap_or(0).into());
    Some(Timestamp::of((date.year.into(), date.month.into(), date.day.into()), time, offset.into()))
}

fn debug(reader: &mut Reader<'_>, mut table: Table<'_>) -> Debug {
    let container = table.require(reader, "container", "the name of a container in the image");
    let (until, duration) = (table.get(reader, "until"), table.get(reader, "duration"));
    if until.is_some() == duration.is_some() {
        reader.refuse(&format!("{}.until", table.path), "give exactly one of `until` and `duration`");
    }
    let debug = Debug {
        container: container.and_then(|value| name(reader, &value)).unwrap_or_default(),
        until: until.and_then(|value| timestamp(reader, &value)),
        duration: duration.and_then(|value| seconds(reader, &value, Seconds(60), Seconds(86_400))),
    };
    table.finish(reader);
    debug
}

fn watchdog(reader: &mut Reader<'_>, mut table: Table<'_>) -> Watchdog {
    let span = |r: &mut Reader<'_>, v: &Value<'_>| seconds(r, v, Seconds(10), Seconds(600));
    let timeout = optional!(table, reader, "timeout", span);
    table.finish(reader);
    timeout.map_or_else(Watchdog::default, |timeout| Watchdog { timeout })
}

fn log(reader: &mut Reader<'_>, mut table: Table<'_>) -> Log {
    let bound = |r: &mut Reader<'_>, v: &Value<'_>| bytes(r, v, Bytes(8 << 20), Bytes(1 << 40));
    let size = optional!(table, reader, "size", bound);
    table.finish(reader);
    size.map_or_else(Log::default, |size| Log { size })
}

/// Reads the whole document. What could not be read has been told to the reader and is left out.
pub(super) fn machine(reader: &mut Reader<'_>, mut table: Table<'_>) -> MachineConfig {
    let a_host_name =
        "a host name: at most 64 letters, digits, `-` and `.` between them (RFC 1123), not `localhost`";
    let host = |r: &mut Reader<'_>, v: &Value<'_>| {
        r.parsed(v, a_host_name, |text| names::is_own_name(text).then(|| text.to_owned()))
    };
    /// A table of its own, read by a function.
    macro_rules! part {
        ($key:literal, $read:ident) => {
            table.get(reader, $key).map(|value| {
                let table = reader.table(&value);
                $read(reader, table)
            })
        };
    }
    let serial = table.require(reader, "serial", "a whole number that each new configuration raises");
    let config = MachineConfig {
        serial: serial.and_then(|value| reader.integer(&value, 1..=MAX_SERIAL)).unwrap_or_default(),
        hostname: optional!(table, reader, "hostname", host),
        network: part!("network", network).unwrap_or_default(),
        time: part!("time", time).unwrap_or_default(),
        control: part!("control", control).unwrap_or_default(),
        cluster: part!("cluster", cluster).flatten(),
        lock: part!("lock", lock),
        channel: part!("channel", channel).flatten(),
        update: part!("update", update).unwrap_or_default(),
        containers: tables!(table, reader, "container", MANY, container),
        labels: table.get(reader, "labels").map(|value| labels(reader, &value)).unwrap_or_default(),
        debug: part!("debug", debug),
        watchdog: part!("watchdog", watchdog).unwrap_or_default(),
        log: part!("log", log).unwrap_or_default(),
    };
    table.finish(reader);
    config
}
