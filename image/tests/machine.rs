//! What a machine configuration may say, and what is refused with which words.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_image::machine::{
    BondMode, Bytes, ConfigError, Cpus, Day, LinkName, MAX_ERRORS, MAX_TEXT, MachineConfig, Seconds,
    TimeOfDay, TimeZone, Timestamp, UpdatePolicy, UtcOffset, diff,
};

const EXAMPLE: &str = include_str!("../../examples/machine.toml");

fn parse(text: &str) -> MachineConfig {
    MachineConfig::parse(text).unwrap_or_else(|errors| panic!("{text}\n{}", shown(&errors)))
}

fn shown(errors: &[ConfigError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_says_what_it_seems_to() {
    let config = parse(EXAMPLE);
    assert_eq!((config.serial, config.hostname.as_deref()), (1, Some("web-1.example.com")));
    let [first, second] = config.network.interfaces.as_slice() else { panic!() };
    assert_eq!(first.link(), LinkName::Name("eth0".into()));
    assert_eq!(first.addressing.addresses[1].to_string(), "2001:db8:0:1::10/64");
    assert_eq!(first.addressing.routes[0].metric, Some(100));
    assert!(!first.addressing.takes_router_advertisements());
    assert_eq!(second.link().to_string(), "52:54:00:12:34:56");
    assert!(second.addressing.dhcp && !second.addressing.takes_router_advertisements());
    let bond = &config.network.bonds[0];
    assert_eq!((bond.mode, bond.miimon, bond.members.len()), (BondMode::Ieee8023ad, 100, 2));
    let vlan = &config.network.vlans[0];
    assert_eq!((vlan.id, vlan.parent.to_string(), vlan.addressing.mtu), (20, "bond0".into(), Some(9000)));
    assert_eq!(config.network.dns.servers.len(), 2);
    assert_eq!(config.network.proxy.https.as_ref().unwrap().port(), 3128);
    assert_eq!((config.control.port, config.control.trust_roots.len()), (7443, 1));
    let cluster = config.cluster.as_ref().unwrap();
    assert_eq!((cluster.endpoints[1].host(), cluster.endpoints[1].port()), ("2001:db8:0:1::100", 6443));
    assert_eq!(config.update.policy, UpdatePolicy::Automatic);
    let window = &config.update.windows[0];
    assert_eq!((window.days.as_slice(), window.from), ([Day::Sat, Day::Sun].as_slice(), TimeOfDay(150)));
    assert_eq!(window.duration, Seconds(7200));
    assert_eq!(window.time_zone, TimeZone::Offset(UtcOffset(60)));
    let container = &config.containers[0];
    assert_eq!((container.memory, container.cpus), (Some(Bytes(512 << 20)), Some(Cpus(1500))));
    assert_eq!(container.environment["LOG_LEVEL"], "info");
    assert_eq!(config.labels["example.com/tier"], "frontend");
    // date -u -d 2026-11-30T18:00:00Z +%s
    assert_eq!(config.debug.as_ref().unwrap().until, Some(Timestamp(1_796_061_600)));
    assert_eq!(config.watchdog.timeout, Seconds(60));
    assert_eq!(parse("serial = 9"), MachineConfig::empty(9));
}

#[test]
fn what_is_written_is_read_as_the_same() {
    let config = parse(EXAMPLE);
    let written = toml::to_string(&config).unwrap();
    assert_eq!(parse(&written), config, "{written}");
    let json = serde_json::to_value(MachineConfig::empty(3)).unwrap();
    assert_eq!(json, serde_json::json!({ "serial": 3 }), "defaults are not written");
}

/// A text without the line of the serial, the key that the error names, and words of its message.
const BAD: &[(&str, &str, &str)] = &[
    // Types and forms.
    ("hostname = 7", "hostname", "this is a whole number; a text between quotes is wanted"),
    ("network = 1", "network", "a table is wanted"),
    ("[network.interface]\nname = 'eth0'", "network.interface", "this is a table; an array"),
    ("[[network.interface]]\nname = 'eth0'\ndhcp = 'yes'", "network.interface[0].dhcp", "`true` or `false`"),
    ("[[network.interface]]\nname = 'eth0'\nmtu = 100", "network.interface[0].mtu", "from 576 to 9216"),
    ("[[network.interface]]\nname = 'eth0'\nmtu = -1", "network.interface[0].mtu", "`-1` is out of range"),
    ("[[network.interface]]\nname = 'eth0'\nmtu = 1500.5", "network.interface[0].mtu", "this is a number"),
    (
        "[[network.interface]]\nname = 'eth0'\naddresses = '10.0.0.1/8'",
        "network.interface[0].addresses",
        "array",
    ),
    (
        "[[network.interface]]\nname = 'eth0'\naddresses = ['10.0.0.1']",
        "network.interface[0].addresses[0]",
        "prefix",
    ),
    (
        "[[network.interface]]\nname = 'eth0'\naddresses = ['10.0.0.1/33']",
        "network.interface[0].addresses[0]",
        "prefix",
    ),
    (
        "[[network.interface]]\nname = 'eth0'\naddresses = ['10.0.0.01/8']",
        "network.interface[0].addresses[0]",
        "prefix",
    ),
    ("[[network.interface]]\nmac = '52:54:00:12:34'", "network.interface[0].mac", "52:54:00:12:34:56"),
    (
        "[[network.interface]]\nname = 'a-very-long-name'",
        "network.interface[0].name",
        "at most 15 characters",
    ),
    ("[[network.interface]]\nname = 'lo'", "network.interface[0].name", "not `lo`"),
    ("[[network.vlan]]\nname = 'v'\nid = 4095\nparent = 'eth0'", "network.vlan[0].id", "from 1 to 4094"),
    ("[[network.vlan]]\nname = 'v'\nid = 0\nparent = 'eth0'", "network.vlan[0].id", "from 1 to 4094"),
    (
        "[[network.bond]]\nname = 'b'\nmembers = ['eth0']\nmode = 'active-back'",
        "network.bond[0].mode",
        "did you mean `active-backup`?",
    ),
    (
        "[[network.bond]]\nname = 'b'\nmembers = ['eth0']\nmiimon = 1",
        "network.bond[0].miimon",
        "from 10 to 10000",
    ),
    ("[network.dns]\nservers = ['ns.example.com']", "network.dns.servers[0]", "IPv4 or IPv6 address"),
    (
        "[network.dns]\nservers = ['1.1.1.1', '1.1.1.2', '1.1.1.3', '1.1.1.4']",
        "network.dns.servers",
        "at most 3",
    ),
    ("[network.dns]\nsearch = ['example..com']", "network.dns.search[0]", "is not a domain"),
    ("[network.proxy]\nhttp = 'proxy:3128'", "network.proxy.http", "https://"),
    ("[network.proxy]\nhttp = 'ftp://proxy'", "network.proxy.http", "neither"),
    ("[network.proxy]\nno-proxy = ['a b']", "network.proxy.no-proxy[0]", "a host name, a domain"),
    ("[time]\nservers = ['-ntp']", "time.servers[0]", "a host name or an address"),
    ("[control]\nport = 0\n", "control.port", "from 1 to 65535"),
    (
        "[control]\ntrust-roots = ['-----BEGIN CERTIFICATE-----\\nMIIB\\n-----END CERTIFICATE-----']",
        "control.trust-roots[0]",
        "certificates in PEM",
    ),
    ("[cluster]\nname = 'a.b'\nendpoints = ['https://a']", "cluster.name", "a label"),
    ("[cluster]\nname = 'a'\nendpoints = ['https://a:70000']", "cluster.endpoints[0]", "its port"),
    ("[cluster]\nname = 'a'\nendpoints = ['https://[1.2.3.4]']", "cluster.endpoints[0]", "no IPv6 address"),
    ("[cluster]\nname = 'a'\nendpoints = ['https://me:secret@a']", "cluster.endpoints[0]", "password"),
    (
        "[channel]\nurl = 'https://a'\nname = 'stable'\nkey = 'MCow'",
        "channel.key",
        "Ed25519 public key in PEM",
    ),
    ("[update]\npolicy = 'auto'", "update.policy", "`off`, `download`, `stage`, `automatic`"),
    ("[[update.window]]\nfrom = '24:00'\nduration = '1h'", "update.window[0].from", "`02:30`"),
    ("[[update.window]]\nfrom = '02:00'\nduration = '5m'", "update.window[0].duration", "from `10m` to `1d`"),
    (
        "[[update.window]]\nfrom = '02:00'\nduration = '1h'\ndays = ['monday']",
        "update.window[0].days[0]",
        "did you mean `mon`?",
    ),
    (
        "[[update.window]]\nfrom = '02:00'\nduration = '1h'\ntime-zone = 'Europe/Atlantis'",
        "update.window[0].time-zone",
        "`Europe/Berlin`",
    ),
    ("[[container]]\nname = 'Web'", "container[0].name", "lower-case"),
    ("[[container]]\nname = 'web'\nmemory = '10kB'", "container[0].memory", "`KiB`, `MiB`"),
    ("[[container]]\nname = 'web'\nmemory = 1024", "container[0].memory", "a text between quotes"),
    ("[[container]]\nname = 'web'\ncpus = 0.001", "container[0].cpus", "from 0.01 to 1024"),
    ("[[container]]\nname = 'web'\ncpus = nan", "container[0].cpus", "from 0.01 to 1024"),
    ("[[container]]\nname = 'web'\npids = 0", "container[0].pids", "from 1 to 4194304"),
    (
        "[[container]]\nname = 'web'\nenvironment = { 'A-B' = 'x' }",
        "container[0].environment.A-B",
        "letters, digits and `_`",
    ),
    (
        "[[container]]\nname = 'web'\nenvironment = { A = 1 }",
        "container[0].environment.A",
        "a text between quotes",
    ),
    ("[labels]\n'-a' = 'x'", "labels.-a", "begin and end with a letter"),
    ("[labels]\n'A.com/b/c' = 'x'", "labels.\"A.com/b/c\"", "domain"),
    ("[labels]\na = 'x y'", "labels.a", "at most 63"),
    ("[debug]\ncontainer = 'toolbox'\nuntil = 2026-11-30", "debug.until", "date and offset"),
    ("[debug]\ncontainer = 'toolbox'\nuntil = '2026-02-30T00:00:00Z'", "debug.until", "date and offset"),
    ("[debug]\ncontainer = 'toolbox'\nduration = '25h'", "debug.duration", "to `1d`"),
    ("[watchdog]\ntimeout = '5s'", "watchdog.timeout", "from `10s` to `10m`"),
    ("[watchdog]\ntimeout = '99999999999999999999s'", "watchdog.timeout", "from `10s` to `10m`"),
    ("[log]\nsize = '1KiB'", "log.size", "from `8MiB` to `1TiB`"),
    ("hostname = 'web_1'", "hostname", "RFC 1123"),
    ("hostname = 'web-'", "hostname", "RFC 1123"),
    ("hostname = 'localhost'", "hostname", "not `localhost`"),
    ("hostname = 'a.b.c.7'", "hostname", "RFC 1123"),
    // Keys.
    ("hostnaem = 'web'", "hostnaem", "did you mean `hostname`?"),
    (
        "[[network.interface]]\nname = 'eth0'\ngateway = '10.0.0.1'",
        "network.interface[0].gateway",
        "did you mean `gateways`?",
    ),
    ("[network.bonds]", "network.bonds", "did you mean `bond`?"),
    ("[xyz]", "xyz", "there are: serial, hostname, network"),
    ("[[network.interface]]\ndhcp = true", "network.interface[0].name", "exactly one of `name` and `mac`"),
    (
        "[[network.interface]]\nname = 'eth0'\nmac = '52:54:00:12:34:56'",
        "network.interface[0].name",
        "exactly one",
    ),
    ("[[network.vlan]]\nname = 'v'\nparent = 'eth0'", "network.vlan[0].id", "it is missing"),
    ("[[network.bond]]\nname = 'b'", "network.bond[0].members", "it is missing"),
    ("[channel]\nurl = 'https://a'\nname = 'stable'", "channel.key", "exactly one of `key` and `root`"),
    (
        "[channel]\nurl = 'https://a'\nname = 'stable'\nroot = 'sha256:00'",
        "channel.root",
        "64 hexadecimal digits",
    ),
    ("[update]\ncheck-interval = '1s'", "update.check-interval", "from `1m` to `7d`"),
    ("[update]\nconnections = 0", "update.connections", "from 1 to 16"),
    ("[update]\nbandwidth = '10'", "update.bandwidth", "`KiB`"),
    ("[update]\ntrial-deadline = '2h'", "update.trial-deadline", "from `30s` to `1h`"),
    ("[[update.health]]\nname = 'web'", "update.health[0].http", "exactly one"),
    (
        "[[update.health]]\nname = 'web'\nhttp = 'http://10.0.0.1/'",
        "update.health[0].http",
        "http://127.0.0.1",
    ),
    ("[update.pre-reboot]\ndeadline = '1m'", "update.pre-reboot.container", "it is missing"),
    ("[debug]\ncontainer = 'toolbox'", "debug.until", "exactly one of `until` and `duration`"),
    // What keys have to do with each other.
    (
        "[[network.interface]]\nname = 'eth0'\naddresses = ['10.0.0.1/8']\n[[network.interface]]\nname = 'eth1'\naddresses = ['10.1.0.1/16']",
        "network.interface[1].addresses[0]",
        "the network of `10.1.0.1/16` overlaps that of `10.0.0.1/8` on `eth0`",
    ),
    (
        "[[network.interface]]\nname = 'eth0'\naddresses = ['2001:db8::1/32']\n[[network.vlan]]\nname = 'v'\nid = 1\nparent = 'eth0'\naddresses = ['2001:db8:1::1/64']",
        "network.vlan[0].addresses[0]",
        "overlaps",
    ),
    (
        "[[network.interface]]\nname = 'eth0'\n[[network.interface]]\nname = 'eth0'",
        "network.interface[1].name",
        "`eth0` is `network.interface[0]` already",
    ),
    (
        "[[network.interface]]\nmac = '52:54:00:12:34:aa'\n[[network.interface]]\nmac = '52:54:00:12:34:AA'",
        "network.interface[1].mac",
        "already",
    ),
    (
        "[[network.interface]]\nname = 'eth0'\naddresses = ['10.0.0.1/24']\ngateways = ['10.0.1.1']",
        "network.interface[0].gateways[0]",
        "in no network of `addresses`: 10.0.0.0/24",
    ),
    (
        "[[network.interface]]\nname = 'eth0'\naddresses = ['10.0.0.1/24']\ngateways = ['2001:db8::1']",
        "network.interface[0].gateways[0]",
        "needs an IPv6 address",
    ),
    (
        "[[network.interface]]\nname = 'eth0'\naddresses = ['10.0.0.1/24']\ngateways = ['10.0.0.1']",
        "network.interface[0].gateways[0]",
        "own address",
    ),
    (
        "[[network.interface]]\nname = 'eth0'\naddresses = ['10.0.0.1/24']\ngateways = ['10.0.0.2', '10.0.0.3']",
        "network.interface[0].gateways[1]",
        "one IPv4 gateway",
    ),
    (
        "[[network.interface]]\nname = 'eth0'\ndhcp = true\ngateways = ['10.0.0.2']",
        "network.interface[0].gateways[0]",
        "needs an IPv4 address",
    ),
    (
        "[[network.interface]]\nname = 'eth0'\naddresses = ['10.0.0.0/24']",
        "network.interface[0].addresses[0]",
        "the network itself",
    ),
    (
        "[[network.interface]]\nname = 'eth0'\naddresses = ['10.0.0.255/24']",
        "network.interface[0].addresses[0]",
        "broadcast",
    ),
    (
        "[[network.interface]]\nname = 'eth0'\naddresses = ['127.0.0.1/8']",
        "network.interface[0].addresses[0]",
        "no interface",
    ),
    (
        "[[network.interface]]\nname = 'eth0'\naddresses = ['ff02::1/64']",
        "network.interface[0].addresses[0]",
        "no interface",
    ),
    (
        "[[network.interface]]\nname = 'eth0'\naddresses = ['10.0.0.1/0']",
        "network.interface[0].addresses[0]",
        "whole internet",
    ),
    (
        "[[network.interface]]\nname = 'eth0'\naddresses = ['10.0.0.1/24', '10.0.0.1/16']",
        "network.interface[0].addresses[1]",
        "twice",
    ),
    (
        "[[network.interface]]\nname = 'eth0'\naddresses = ['2001:db8::1/64']\nmtu = 1000",
        "network.interface[0].mtu",
        "1280",
    ),
    (
        "[[network.interface]]\nname = 'eth0'\naddresses = ['10.0.0.1/24']\nroute = [{ to = '10.9.9.9/8', via = '10.0.0.2' }]",
        "network.interface[0].route[0].to",
        "did you mean `10.0.0.0/8`?",
    ),
    (
        "[[network.interface]]\nname = 'eth0'\naddresses = ['10.0.0.1/24']\nroute = [{ to = '10.0.0.0/8', via = '10.1.0.2' }]",
        "network.interface[0].route[0].via",
        "in no network",
    ),
    (
        "[[network.interface]]\nname = 'eth0'\naddresses = ['10.0.0.1/24']\nroute = [{ to = '0.0.0.0/0', via = '10.0.0.2' }]",
        "network.interface[0].route[0].to",
        "`gateways`",
    ),
    (
        "[[network.interface]]\nname = 'eth0'\naddresses = ['10.0.0.1/24']\nroute = [{ to = '2001:db8::/32', via = '10.0.0.2' }]",
        "network.interface[0].route[0].via",
        "is IPv4",
    ),
    ("[[network.bond]]\nname = 'b'\nmembers = []", "network.bond[0].members", "one at least"),
    (
        "[[network.interface]]\nname = 'eth0'\n[[network.bond]]\nname = 'b'\nmembers = ['eth0']",
        "network.bond[0].members[0]",
        "settings of its own in `network.interface[0]`",
    ),
    (
        "[[network.bond]]\nname = 'b'\nmembers = ['eth0']\n[[network.bond]]\nname = 'c'\nmembers = ['eth1', 'eth0']",
        "network.bond[1].members[1]",
        "member of the bond `b` already",
    ),
    (
        "[[network.bond]]\nname = 'b'\nmembers = ['eth0']\n[[network.vlan]]\nname = 'v'\nid = 1\nparent = 'eth0'",
        "network.vlan[0].parent",
        "use the bond",
    ),
    ("[[network.vlan]]\nname = 'v'\nid = 1\nparent = 'v'", "network.vlan[0].parent", "is a VLAN itself"),
    (
        "[[network.vlan]]\nname = 'v'\nid = 1\nparent = 'eth0'\n[[network.vlan]]\nname = 'w'\nid = 1\nparent = 'eth0'",
        "network.vlan[1].id",
        "is VLAN 1 of `eth0` already",
    ),
    ("[control]\nlisten = ['10.0.0.1']", "control.listen", "nobody could be let in"),
    ("[cluster]\nname = 'a'\nendpoints = ['http://a']", "cluster.endpoints[0]", "not encrypted"),
    ("[lock]\ngroup = 'a'", "lock", "exactly one of `etcd` and `fleetlock`"),
    (
        "[lock]\netcd = ['https://a']\nfleetlock = 'https://b'",
        "lock",
        "exactly one of `etcd` and `fleetlock`",
    ),
    ("[lock]\netcd = []", "lock.etcd", "one at least"),
    ("[lock]\netcd = ['https://a', 'http://b']", "lock.etcd[1]", "not encrypted"),
    ("[lock]\netcd = ['https://a', 'https://a']", "lock.etcd[1]", "twice"),
    ("[lock]\netcd = ['https://me:secret@a']", "lock.etcd[0]", "password"),
    ("[lock]\nfleetlock = 'http://b'", "lock.fleetlock", "not encrypted"),
    ("[lock]\nfleetlock = 'https://b'\ngroup = 'a/b'", "lock.group", "FleetLock group"),
    ("[lock]\netcd = ['https://a']\ngroup = 'a b'", "lock.group", "a group: 1 to 128"),
    ("[cluster]\nname = 'a'\nendpoints = []", "cluster.endpoints", "one at least"),
    ("[update]\npolicy = 'stage'", "update.policy", "add `[channel]`"),
    (
        "[[update.window]]\nfrom = '02:00'\nduration = '1h'\ndays = ['mon', 'mon']",
        "update.window[0].days",
        "twice",
    ),
    ("[[container]]\nname = 'web'\n[[container]]\nname = 'web'", "container[1].name", "`container[0]` too"),
    ("[time]\nservers = ['a.b', 'a.b']", "time.servers[1]", "twice"),
    // Not TOML.
    ("hostname = 'a'\nhostname = 'b'", "", "not TOML: duplicate key"),
    ("hostname = ", "", "not TOML"),
];

#[test]
fn each_fault_is_refused_with_its_key_its_place_and_what_is_allowed() {
    for (text, key, words) in BAD {
        let text = format!("serial = 1\n{text}\n");
        let Err(errors) = MachineConfig::parse(&text) else { panic!("accepted:\n{text}") };
        let [ConfigError::Text(error)] = errors.as_slice() else {
            panic!("one error is wanted for\n{text}\n{}", shown(&errors));
        };
        assert_eq!(error.key, *key, "{text}\n{error}");
        assert!(error.to_string().contains(words), "{text}\n{error}");
        assert!(error.line > 1 && error.column > 0, "{text}\n{error}");
        assert!(text.get(error.span.clone()).is_some(), "{text}\n{error}");
    }
}

#[test]
fn the_serial_is_wanted_and_bounded() {
    for (text, words) in [
        ("", "it is missing; a whole number that each new configuration raises"),
        ("serial = 0", "`0` is out of range; a whole number from 1 to 9223372036854775807 is wanted"),
        ("serial = -1", "`-1` is out of range"),
        ("serial = '1'", "this is a text"),
        ("serial = 9223372036854775808", "out of range"),
    ] {
        let errors = MachineConfig::parse(text).unwrap_err();
        assert_eq!(errors.len(), 1, "{text}: {}", shown(&errors));
        assert_eq!(errors[0].key(), "serial", "{text}");
        assert!(errors[0].to_string().contains(words), "{text}: {}", errors[0]);
    }
    assert_eq!(parse("serial = 0x10").serial, 16);
    assert_eq!(parse("serial = 1_000").serial, 1000);
}

#[test]
fn all_errors_are_told_in_the_order_of_the_text() {
    let text = "serial = 'one'\nhostname = 'a_b'\n\n[[network.interface]]\nname = 'eth0'\n\
                addresses = ['10.0.0.1', '10.0.0.2/24']\ngateways = ['10.0.0.2']\n\
                [[network.vlan]]\nname = 'v'\nid = 5000\nparent = 'eth0'\nadresses = []\n\
                [update]\npolicy = 'stage'\n[chanel]\n";
    let errors = MachineConfig::parse(text).unwrap_err();
    let keys: Vec<&str> = errors.iter().map(ConfigError::key).collect();
    let wanted = [
        "serial",
        "hostname",
        "network.interface[0].addresses[0]",
        // The items of a list with a fault keep their own numbers: this is no complaint about `addresses[0]`.
        "network.interface[0].gateways[0]",
        "network.vlan[0].id",
        "network.vlan[0].adresses",
        "update.policy",
        "chanel",
    ];
    assert_eq!(keys, wanted, "{}", shown(&errors));
    assert_eq!(
        errors[1].to_string(),
        "line 2, column 12: hostname: `a_b` is not a host name: at most 64 letters, digits, `-` and `.` between them \
         (RFC 1123), not `localhost`"
    );
}

#[test]
fn what_is_shown_is_short_and_cannot_command_a_terminal() {
    let long = format!("serial = 1\nhostname = \"\\u001b[31m{}\"\n", "x".repeat(10_000));
    let errors = shown(&MachineConfig::parse(&long).unwrap_err());
    assert!(errors.len() < 400 && !errors.contains('\u{1b}'), "{errors}");
    let many = (0..1000).map(|number| format!("key{number} = 1")).collect::<Vec<_>>().join("\n");
    assert_eq!(MachineConfig::parse(&many).unwrap_err().len(), MAX_ERRORS);
    let large = format!("serial = 1\n#{}", "x".repeat(MAX_TEXT));
    assert_eq!(MachineConfig::parse(&large), Err(vec![ConfigError::TooLarge(large.len())]));
    assert!(MachineConfig::parse(&large[..MAX_TEXT]).is_ok());
}

/// The largest texts of their kinds: nothing takes long, nothing overflows the stack.
#[test]
fn the_worst_texts_are_read_in_bounded_time() {
    let start = std::time::Instant::now();
    let fill = |item: &dyn Fn(usize) -> String, head: &str, tail: &str| {
        let mut text = head.to_owned();
        for number in 0.. {
            let item = item(number);
            if text.len() + item.len() + tail.len() > MAX_TEXT {
                break;
            }
            text += &item;
        }
        text + tail
    };
    for text in [
        fill(&|_| "[".into(), "serial = ", ""),
        fill(&|_| "{a=".into(), "serial = ", ""),
        fill(&|_| "a.".into(), "", "b = 1"),
        fill(
            &|n| format!("[[network.interface]]\nname='e{n}'\naddresses=['10.0.0.1/8']\n"),
            "serial=1\n",
            "",
        ),
        fill(&|n| format!("[[network.vlan]]\nname='e{n}'\nparent='e{n}'\nid=1\n"), "serial=1\n", ""),
        fill(&|n| format!("a{n}='x'\n"), "serial=1\n[labels]\n", ""),
        fill(&|_| "'10.0.0.1/8',".into(), "serial=1\n[[network.interface]]\nname='e'\naddresses=[", "]"),
        fill(&|n| format!("[key{n}]\n"), "serial=1\n", ""),
    ] {
        assert!(MachineConfig::parse(&text).is_err());
    }
    // Not a measurement: minutes would be a fault.
    assert!(start.elapsed().as_secs() < 60);
}

#[test]
fn good_but_unusual_things_are_taken() {
    for text in [
        "hostname = 'WEB-1'",
        "hostname = '1a'",
        // Point to point, hosts alone, and one network with two addresses on one interface.
        "[[network.interface]]\nname = 'eth0'\naddresses = ['10.0.0.0/31', '10.1.1.1/32', '10.2.0.1/24', '10.2.0.2/24']",
        // A link-local gateway; link-local networks are on each link.
        "[[network.interface]]\nname = 'a'\naddresses = ['fe80::1/64']\n[[network.interface]]\nname = 'b'\naddresses = ['fe80::2/64', '2001:db8::1/64']\ngateways = ['fe80::9']",
        // What the server gives is not known here.
        "[[network.interface]]\nname = 'a'\ndhcp = true\nroute = [{ to = '10.0.0.0/8', via = '192.0.2.9' }]",
        "[[network.interface]]\nname = 'a'\nroute = [{ to = '10.0.0.0/8' }, { to = '10.0.0.0/8', metric = 9 }]",
        "[[network.interface]]\nname = 'eth0'\n[[network.vlan]]\nname = 'eth0.7'\nid = 7\nparent = 'eth0'",
        "[network.proxy]\nhttp = 'http://user:password@proxy:3128'\nno-proxy = ['*']",
        "[time]\nservers = ['2001:db8::123']",
        "[[container]]\nname = 'web'\ncpus = 2\nmemory = '1048576'",
        "[debug]\ncontainer = 'toolbox'\nuntil = '2026-11-30T19:00:00+01:00'",
        "labels = {}",
    ] {
        let _ = parse(&format!("serial = 1\n{text}\n"));
    }
}

#[test]
fn changes_are_told_by_key_and_passwords_are_not() {
    let old = parse(EXAMPLE);
    assert_eq!(diff(&old, &old), ashlar_image::machine::Changes::default());
    let text = EXAMPLE
        .replace("serial = 1", "serial = 2")
        .replace("192.0.2.10/24", "192.0.2.11/24")
        .replace("listen = [\"192.0.2.10\"]", "listen = [\"192.0.2.11\"]")
        .replace("http = \"http://proxy", "http = \"http://me:secret@proxy")
        .replace("miimon = 100", "miimon = 200")
        .replace("rack = \"r12\"\n", "row = \"r12\"\n");
    let new = parse(&text);
    let changes = diff(&old, &new);
    assert_eq!(
        changes.at_once,
        [
            "control.listen: [`192.0.2.10`] -> [`192.0.2.11`]",
            "labels.rack: `r12` removed",
            "labels.row: `r12` added",
            "network.bond[bond0].miimon: 100 -> 200",
            "network.interface[eth0].addresses: [`192.0.2.10/24`, `2001:db8:0:1::10/64`] -> [`192.0.2.11/24`, \
             `2001:db8:0:1::10/64`]",
            "network.proxy.http: `http://proxy.example.com:3128` -> `http://…@proxy.example.com:3128`",
        ]
    );
    assert_eq!(changes.needs_reboot, [] as [&str; 0]);
    let mut other = MachineConfig::empty(3);
    other.watchdog.timeout.0 = 30;
    let waits = diff(&MachineConfig::empty(2), &other);
    assert_eq!((waits.at_once.len(), waits.needs_reboot.len()), (0, 1), "{waits:?}");
    let all = diff(&MachineConfig::empty(0), &old);
    assert!(all.at_once.iter().any(|line| line == "hostname: `web-1.example.com` added"), "{all:?}");
    assert!(!format!("{all:?}").contains("-----BEGIN"));
}

mod any_text {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Damaged examples: never a panic, each error has a place in the text.
        #[test]
        fn is_read_or_refused_with_places(
            at in 0..EXAMPLE.len(), length in 0..40usize, with in "[\\x20-\\x7e\n\u{e4}]{0,8}"
        ) {
            let (start, end) = (at, (at + length).min(EXAMPLE.len()));
            let good = EXAMPLE.is_char_boundary(start) && EXAMPLE.is_char_boundary(end);
            prop_assume!(good);
            let text = format!("{}{with}{}", &EXAMPLE[..start], &EXAMPLE[end..]);
            match MachineConfig::parse(&text) {
                Ok(config) => {
                    let written = toml::to_string(&config).unwrap();
                    prop_assert_eq!(MachineConfig::parse(&written).unwrap(), config);
                }
                Err(errors) => for error in errors {
                    let ConfigError::Text(error) = error else { panic!("{error}") };
                    prop_assert!(text.get(error.span.clone()).is_some());
                    prop_assert!(error.line >= 1 && error.line <= text.matches('\n').count() + 1);
                }
            }
        }

        #[test]
        fn values_are_shown_as_they_are_read(
            seconds in 0..10_000_000u64, bytes in 0..u64::MAX >> 12, minutes in 0..1440u16, offset in -1439..1440i16,
            // 1970 to 9999.
            time in 0..253_402_300_800i64
        ) {
            prop_assert_eq!(Seconds::parse(&Seconds(seconds).to_string()), Some(Seconds(seconds)));
            prop_assert_eq!(Bytes::parse(&Bytes(bytes).to_string()), Some(Bytes(bytes)));
            prop_assert_eq!(TimeOfDay::parse(&TimeOfDay(minutes).to_string()), Some(TimeOfDay(minutes)));
            prop_assert_eq!(UtcOffset::parse(&UtcOffset(offset).to_string()), Some(UtcOffset(offset)));
            let config = parse(&format!("serial = 1\n[debug]\ncontainer = 'a'\nuntil = {}", Timestamp(time)));
            prop_assert_eq!(config.debug.unwrap().until, Some(Timestamp(time)));
        }
    }
}
