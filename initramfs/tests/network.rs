//! The network of a machine configuration on a real kernel, with `ip` as the judge.

#![allow(clippy::unwrap_used)]

mod common;

use ashlar_image::machine::MachineConfig;
use ashlar_init::network::{Network, Surroundings};
use common::{Server, has, inside, inside_kernel, load, sh};
use serde_json::Value;
use std::process::Command;
use std::time::{Duration, Instant};

fn config(text: &str) -> MachineConfig {
    MachineConfig::parse(&format!("serial = 1\n{text}")).unwrap_or_else(|errors| panic!("{errors:?}"))
}

fn json(line: &str) -> Value {
    let text = sh(line);
    if text.trim().is_empty() { Value::Array(Vec::new()) } else { serde_json::from_str(&text).unwrap() }
}

/// A link as `ip` tells it.
fn link(name: &str) -> Value {
    json(&format!("ip -j -d link show dev {name}"))[0].clone()
}

/// The addresses of an interface but link-local ones, as `ip` tells them.
fn addresses(name: &str) -> Vec<String> {
    let shown = json(&format!("ip -j addr show dev {name}"));
    let addresses = shown[0]["addr_info"].as_array().cloned().unwrap_or_default();
    let global = addresses.iter().filter(|address| address["scope"] == "global");
    global.map(|a| format!("{}/{}", a["local"].as_str().unwrap(), a["prefixlen"])).collect()
}

/// The routes but those of the kernel itself.
fn routes() -> Vec<String> {
    let mut lines = Vec::new();
    for family in ["-4", "-6"] {
        for route in json(&format!("ip {family} -j route show")).as_array().unwrap() {
            if route["protocol"] != "kernel" {
                let text = |key: &str| route[key].as_str().unwrap_or("-").to_owned();
                lines.push(format!(
                    "{} via {} dev {} metric {}",
                    text("dst"),
                    text("gateway"),
                    text("dev"),
                    route["metric"]
                ));
            }
        }
    }
    lines.sort();
    lines
}

/// All that `ip` knows but what changes by itself.
fn everything() -> String {
    format!(
        "{:?} {}",
        routes(),
        sh(
            "ip -o addr show | sed 's/valid_lft.*//; s/tentative//; s/  */ /g'; ip -o link show | sed 's/ qdisc.*//'"
        )
    )
}

fn nothing_is_wired(_: &str) -> bool {
    false
}

fn is_ours(name: &str) -> bool {
    name.starts_with('e')
}

fn start(text: Option<&str>, wired: fn(&str) -> bool) -> Network {
    let surroundings = Surroundings { resolv_conf: "/tmp/resolv.conf".into(), is_wired: wired };
    let config = text.map(config);
    Network::start_in(surroundings, config.as_ref(), Duration::from_secs(1)).unwrap()
}

/// Files of the test, and two cables: `e0` to `p0`, `e1` to `p1`.
fn cables() {
    sh("mount -t tmpfs tmp /tmp");
    for number in 0..3 {
        sh(&format!(
            "ip link add e{number} address 02:00:00:00:00:0{number} type veth peer name p{number}; ip link set p{number} up"
        ));
    }
}

/// Lets the network run until `done`.
fn run(network: &mut Network, done: impl Fn(&Network) -> bool) {
    let began = Instant::now();
    while !done(network) {
        assert!(began.elapsed() < Duration::from_secs(30), "{:?} {}", network.problems(), everything());
        let now = Duration::from_secs(1) + began.elapsed();
        network.handle_links(now);
        let sockets: Vec<u32> = network.sockets().map(|(index, _)| index).collect();
        for index in sockets {
            network.handle_packets(index, now);
        }
        network.tick(now);
        std::thread::sleep(Duration::from_millis(20));
    }
}

const STATIC: &str = "[[network.interface]]\nname = 'e0'\naddresses = ['10.1.0.2/24', '10.1.0.3/24', '2001:db8:1::2/64']\n\
    gateways = ['10.1.0.1', 'fe80::1']\nmtu = 1400\n\
    [[network.interface.route]]\nto = '10.9.0.0/16'\nvia = '10.1.0.9'\nmetric = 7\n\
    [[network.interface]]\nmac = '02:00:00:00:00:01'\naddresses = ['10.2.0.2/24']\n\
    [network.dns]\nservers = ['10.1.0.53']\nsearch = ['example.com']\n";

#[test]
fn static_addresses_are_set_changed_and_taken_back() {
    if !has("ip", "iproute2") || !inside("static_addresses_are_set_changed_and_taken_back") {
        return;
    }
    cables();
    let mut network = start(Some(STATIC), nothing_is_wired);
    let now = Duration::from_secs(2);
    assert_eq!(network.problems(), Vec::<String>::new());
    assert_eq!(addresses("e0"), ["10.1.0.2/24", "10.1.0.3/24", "2001:db8:1::2/64"]);
    assert_eq!(addresses("e1"), ["10.2.0.2/24"]);
    let e0 = link("e0")["ifindex"].as_u64().unwrap();
    assert_eq!(
        routes(),
        [
            "10.9.0.0/16 via 10.1.0.9 dev e0 metric 7".to_owned(),
            format!("default via 10.1.0.1 dev e0 metric {}", 100 + e0),
            format!("default via fe80::1 dev e0 metric {}", 100 + e0),
        ]
    );
    assert_eq!(link("e0")["mtu"], 1400);
    assert_eq!(link("e2")["operstate"], "DOWN", "what is not in the configuration is off");
    assert_eq!(
        std::fs::read_to_string("/tmp/resolv.conf").unwrap().lines().skip(1).collect::<Vec<_>>(),
        ["nameserver 10.1.0.53", "search example.com"]
    );
    assert!(network.addresses().contains(&"e1 10.2.0.2/24".to_owned()), "{:?}", network.addresses());
    assert!(!network.is_waiting());
    assert_eq!(network.apply(Some(&config(STATIC)), now).unwrap(), Vec::<String>::new());

    // The first address goes: the second stays, and so do the routes.
    let without = STATIC.replace("'10.1.0.2/24', ", "").replace("mtu = 1400\n", "");
    let changes = network.apply(Some(&config(&without)), now).unwrap();
    assert_eq!(changes, ["e0: the address 10.1.0.2/24 removed", "e0: the MTU 1400 removed"]);
    assert_eq!(addresses("e0"), ["10.1.0.3/24", "2001:db8:1::2/64"]);
    assert_eq!(routes().len(), 3, "{:?}", routes());
    assert_eq!(link("e0")["mtu"], 1500);

    // The kernel refuses the last of many changes: all is as before.
    sh("echo 1 > /proc/sys/net/ipv6/conf/e1/disable_ipv6");
    let before = everything();
    let bad = STATIC
        .replace("10.2.0.2/24'", "10.2.0.9/24', '2001:db8:2::2/64'")
        .replace("gateways", "#gateways")
        .replace("mtu = 1400", "mtu = 1300");
    let refused = network.apply(Some(&config(&bad)), now).unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("e1") && text.contains("2001:db8:2::2/64"), "{text}");
    assert_eq!(everything(), before, "{text}");
    assert_eq!(network.problems(), Vec::<String>::new());

    // Nothing but one interface that is not there yet.
    let later = "[[network.interface]]\nname = 'e7'\naddresses = ['10.7.0.2/24']\n";
    let changes = network.apply(Some(&config(later)), now).unwrap();
    assert!(
        changes.contains(&"e7: there is no such interface; its settings wait for it".to_owned()),
        "{changes:?}"
    );
    assert!(
        addresses("e0").is_empty() && addresses("e1").is_empty() && routes().is_empty(),
        "{}",
        everything()
    );
    assert!(network.is_waiting() && network.problems()[0].contains("e7"));
    sh("ip link add e7 type veth peer name p7");
    run(&mut network, |network| !network.is_waiting());
    assert_eq!(addresses("e7"), ["10.7.0.2/24"]);
    // It goes and comes again.
    sh("ip link del e7");
    run(&mut network, Network::is_waiting);
    sh("ip link add e7 type veth peer name p7");
    run(&mut network, |network| !network.is_waiting());
    assert_eq!(addresses("e7"), ["10.7.0.2/24"]);
}

#[test]
fn addresses_by_dhcp_and_from_routers() {
    if !has("ip", "iproute2")
        || !has("dnsmasq", "dnsmasq-base")
        || !inside("addresses_by_dhcp_and_from_routers")
    {
        return;
    }
    cables();
    // The other end of the cable is another machine.
    let server = Server::start(Command::new("unshare").args(["--net", "sh", "-ec"]).arg(
        "until ip link show p0 2> /dev/null; do sleep 0.05; done > /dev/null\n\
         ip link set lo up; ip link set p0 up; ip addr add 10.3.0.1/24 dev p0\n\
         ip addr add 2001:db8:3::1/64 dev p0 nodad\n\
         exec dnsmasq --no-daemon --conf-file=/dev/null --no-hosts --no-resolv --port=0 --user=root \
         --group=root --pid-file --leasefile-ro --interface=p0 --bind-interfaces --enable-ra \
         --dhcp-range=10.3.0.50,10.3.0.60,1h --dhcp-range=2001:db8:3::,ra-only,64,1h --ra-param=p0,5 \
         --dhcp-option=option:dns-server,10.3.0.53 --dhcp-option=option:ntp-server,10.3.0.123 \
         --dhcp-option=option:domain-name,three.example --dhcp-option=option6:dns-server,[2001:db8:3::53]",
    ));
    std::thread::sleep(Duration::from_millis(300));
    sh(&format!("ip link set p0 netns {}", server.0.id()));
    let mut network = start(None, |name| name == "e0");
    let have =
        |network: &Network, text: &str| network.addresses().iter().any(|address| address.contains(text));
    run(&mut network, |network| have(network, "e0 10.3.0.") && have(network, "e0 2001:db8:3:"));
    run(&mut network, |network| network.name_servers().len() == 2);
    assert!(!network.is_waiting());
    assert_eq!(network.time_servers(), ["10.3.0.123".parse::<std::net::Ipv4Addr>().unwrap()]);
    let resolv = std::fs::read_to_string("/tmp/resolv.conf").unwrap();
    assert!(
        resolv.contains("10.3.0.53") && resolv.contains("2001:db8:3::53") && resolv.contains("three.example"),
        "{resolv}"
    );
    assert!(routes().iter().any(|route| route.starts_with("default via 10.3.0.1 ")), "{:?}", routes());
    assert!(routes().iter().any(|route| route.starts_with("default via fe80:")), "{:?}", routes());

    // Static from now on: nothing of DHCP and routers is left.
    let fixed = "[[network.interface]]\nname = 'e0'\naddresses = ['10.3.0.9/24']\ngateways = ['10.3.0.1']\n";
    let changes = network.apply(Some(&config(fixed)), Duration::from_secs(60)).unwrap();
    assert!(changes.contains(&"e0: DHCP removed".to_owned()), "{changes:?}");
    assert_eq!(addresses("e0"), ["10.3.0.9/24"]);
    assert_eq!(routes().len(), 1, "{:?}", routes());
    assert_eq!(std::fs::read_to_string("/tmp/resolv.conf").unwrap().lines().count(), 1);
    assert_eq!(network.sockets().count(), 0);

    // And back.
    network.apply(None, Duration::from_secs(61)).unwrap();
    run(&mut network, |network| have(network, "e0 10.3.0.") && have(network, "e0 2001:db8:3:"));
    assert!(!addresses("e0").contains(&"10.3.0.9/24".to_owned()), "{:?}", addresses("e0"));
}

const BOND: &str = "[[network.bond]]\nname = 'bond0'\nmembers = ['e1', '02:00:00:00:00:00']\nmtu = 2000\n\
    [[network.vlan]]\nname = 'storage'\nid = 20\nparent = 'bond0'\naddresses = ['10.5.0.2/24']\ngateways = ['10.5.0.1']\n\
    [[network.vlan]]\nname = 'lan'\nid = 30\nparent = 'e2'\naddresses = ['10.6.0.2/24']\nmtu = 1400\n";

/// In a kernel of its own: that of a build machine may have neither module.
#[test]
fn vlans_and_bonds() {
    if !inside_kernel("vlans_and_bonds") {
        return;
    }
    cables();
    let now = Duration::from_secs(2);
    // Without the modules: an error that says so, and nothing is left of the attempt.
    let mut network =
        start(Some("[[network.interface]]\nname = 'e0'\naddresses = ['10.4.0.2/24']\n"), is_ours);
    let before = everything();
    let refused = network.apply(Some(&config(BOND)), now).unwrap_err().to_string();
    assert!(
        refused.contains("bond0") && refused.contains("`bonding`") && refused.contains("`modules`"),
        "{refused}"
    );
    assert_eq!(everything(), before);
    load(&["bonding"]);
    assert!(sh("ip -o link").contains("bond0"), "the module makes one itself");
    let refused = network.apply(Some(&config(BOND)), now).unwrap_err().to_string();
    assert!(refused.contains("`8021q`"), "{refused}");
    assert_eq!(addresses("e0"), ["10.4.0.2/24"]);
    assert!(!sh("ip -o link").contains("bond0"));

    load(&["llc", "stp", "garp", "mrp", "8021q"]);
    let changes = network.apply(Some(&config(BOND)), now).unwrap();
    assert!(
        changes.contains(&"bond0: the bond (mode active-backup, miimon 100 ms) added".to_owned()),
        "{changes:?}"
    );
    let bond = link("bond0");
    let data = &bond["linkinfo"]["info_data"];
    assert_eq!(
        (&data["mode"], &data["miimon"], &bond["mtu"]),
        (&"active-backup".into(), &100.into(), &2000.into())
    );
    for member in ["e0", "e1"] {
        assert_eq!(
            (&link(member)["master"], &link(member)["mtu"]),
            (&"bond0".into(), &2000.into()),
            "{member}"
        );
    }
    assert_eq!(bond["address"], "02:00:00:00:00:01", "the first member's");
    let storage = link("storage");
    assert_eq!((&storage["link"], &storage["mtu"]), (&"bond0".into(), &2000.into()));
    assert_eq!(storage["linkinfo"]["info_data"]["id"], 20);
    assert_eq!((&link("lan")["link"], &link("lan")["mtu"]), (&"e2".into(), &1400.into()));
    assert_eq!(addresses("storage"), ["10.5.0.2/24"]);
    assert_eq!(addresses("lan"), ["10.6.0.2/24"]);
    assert!(addresses("e0").is_empty());
    assert_eq!(routes().len(), 1, "{:?}", routes());
    // The news of all this change nothing.
    network.handle_links(now);
    assert_eq!(network.problems(), Vec::<String>::new());
    assert_eq!(network.apply(Some(&config(BOND)), now).unwrap(), Vec::<String>::new());

    // Another mode: the bond is made anew with all that is on it. Members are found by their hardware's address though
    // they have the bond's.
    let other = BOND.replace("mtu = 2000", "mode = 'balance-rr'\nmtu = 3000");
    network.apply(Some(&config(&other)), now).unwrap();
    assert_eq!(link("bond0")["linkinfo"]["info_data"]["mode"], "balance-rr");
    assert_eq!((&link("e0")["master"], &link("e1")["master"]), (&"bond0".into(), &"bond0".into()));
    assert_eq!((&link("storage")["mtu"], addresses("storage").len(), routes().len()), (&3000.into(), 1, 1));

    // What the kernel refuses late: the VLAN cannot be larger than its parent.
    let before = everything();
    let bad = other.replace("mtu = 1400", "mtu = 9000").replace("10.5.0.2/24", "10.5.0.3/24");
    let refused = network.apply(Some(&config(&bad)), now).unwrap_err().to_string();
    assert!(refused.contains("lan") && refused.contains("9000"), "{refused}");
    assert_eq!(everything(), before);

    // Nothing is left where nothing is asked for.
    let plain = "[[network.interface]]\nname = 'e0'\naddresses = ['10.4.0.2/24']\n";
    network.apply(Some(&config(plain)), now).unwrap();
    let links = sh("ip -o link");
    assert!(!links.contains("bond0") && !links.contains("storage") && !links.contains("lan"), "{links}");
    assert_eq!((addresses("e0"), &link("e0")["mtu"]), (vec!["10.4.0.2/24".to_owned()], &1500.into()));
    network.handle_links(now);
    assert_eq!(network.problems(), Vec::<String>::new());
}
