//! The log: the right lines in the right order, while it is written, rotated and removed.

use crate::machine::Machine;
use crate::programs::{Process, output, tool, wait_for};
use ashlar_control::logs::query::Boot;
use ashlar_control::logs::{Query, Reader};
use ashlar_image::control::LogEntry;
use proptest::prelude::*;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

fn name(number: u64) -> String {
    format!("{number:016}.jsonl")
}

fn entry(time: u64, unit: &str, boot: &str, priority: u8, message: &str) -> LogEntry {
    LogEntry { time, uptime: time, boot: boot.into(), unit: unit.into(), priority, message: message.into() }
}

fn add(folder: &Path, number: u64, entry: &LogEntry) {
    let mut file = OpenOptions::new().create(true).append(true).open(folder.join(name(number))).unwrap();
    file.write_all((serde_json::to_string(entry).unwrap() + "\n").as_bytes()).unwrap();
}

fn all(reader: &mut Reader) -> Vec<LogEntry> {
    let mut entries = Vec::new();
    loop {
        let batch = reader.next_batch().unwrap();
        let text = String::from_utf8(batch.lines).unwrap();
        entries.extend(text.lines().map(|line| serde_json::from_str::<LogEntry>(line).unwrap()));
        if batch.at_end {
            return entries;
        }
    }
}

fn read(folder: &Path, query: &Query, boot: &str) -> Vec<LogEntry> {
    all(&mut Reader::new(folder, query, boot).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_last_lines_are_those_of_all(
        lines in proptest::collection::vec((0..3_usize, 0..3_usize, 0..8_u8, 0..3000_usize, 0..20_u8), 0..120),
        per_file in 1..60_usize,
        count in 0..140_u64,
        unit in 0..4_usize,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (units, boots) = (["web", "db", "kernel"], ["a", "b", "c"]);
        let mut expected = Vec::new();
        for (n, (unit, boot, priority, length, damage)) in lines.iter().enumerate() {
            // Long enough that lines lie across the blocks that are read.
            let entry = entry(n as u64, units[*unit], boots[*boot], *priority, &"x".repeat(length * 20));
            let number = (n / per_file) as u64 * 3 + 1;
            add(folder.path(), number, &entry);
            if *damage == 0 {
                let path = folder.path().join(name(number));
                let mut file = OpenOptions::new().append(true).open(path).unwrap();
                file.write_all(b"{\"time\":1\n\n\xff\n").unwrap();
                file.write_all(&vec![b'y'; 70_000]).unwrap();
                file.write_all(b"\n").unwrap();
            }
            expected.push(entry);
        }
        std::fs::write(folder.path().join("0000.jsonl"), "no log file").unwrap();
        let wanted = units.get(unit).map(|unit| (*unit).to_owned());
        expected.retain(|entry| wanted.as_ref().is_none_or(|unit| *unit == entry.unit));
        let query = Query { units: wanted.into_iter().collect(), ..Query::default() };
        prop_assert_eq!(&read(folder.path(), &query, "c"), &expected);
        let skip = expected.len().saturating_sub(usize::try_from(count).unwrap());
        let last = read(folder.path(), &Query { lines: Some(count), ..query }, "c");
        prop_assert_eq!(&last, &expected[skip..]);
    }
}

#[test]
fn boots_and_times() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (number, time, boot) in [(1, 10, "a"), (1, 20, "b"), (2, 30, "b"), (2, 40, "c"), (2, 50, "c")] {
        add(folder, number, &entry(time, "web", boot, 6, ""));
    }
    let times = |query: Query, boot: &str| -> Vec<u64> {
        read(folder, &query, boot).iter().map(|entry| entry.time).collect()
    };
    let of = |boot| Query { boot, ..Query::default() };
    assert_eq!(times(of(Boot::Current), "c"), [40, 50]);
    assert_eq!(times(of(Boot::Previous), "c"), [20, 30]);
    // Nothing of this boot was logged yet.
    assert_eq!(times(of(Boot::Previous), "d"), [40, 50]);
    assert_eq!(times(of(Boot::Current), "d"), [0_u64; 0]);
    assert_eq!(times(of(Boot::Id("a".into())), "c"), [10]);
    assert_eq!(times(Query { since: Some(30), ..Query::default() }, "c"), [30, 40, 50]);
    assert_eq!(times(Query { lines: Some(1), ..of(Boot::Previous) }, "c"), [30]);
    std::fs::remove_file(folder.join(name(1))).unwrap();
    assert_eq!(times(Query::default(), "c"), [30, 40, 50]);
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(read(empty.path(), &of(Boot::Previous), "c"), []);
    assert!(Reader::new(&empty.path().join("none"), &Query::default(), "c").is_err());
}

#[test]
fn a_reader_goes_on_over_rotations() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let line = |n: u64| entry(n, "web", "a", 6, "");
    let mut reader = Reader::new(folder, &Query::default(), "a").unwrap();
    assert_eq!(all(&mut reader), []);
    add(folder, 1, &line(1));
    assert_eq!(all(&mut reader), [line(1)]);
    // Half a line, then the rest.
    let text = serde_json::to_string(&line(2)).unwrap() + "\n";
    let mut file = OpenOptions::new().append(true).open(folder.join(name(1))).unwrap();
    file.write_all(&text.as_bytes()[..9]).unwrap();
    assert_eq!(all(&mut reader), []);
    file.write_all(&text.as_bytes()[9..]).unwrap();
    // Rotated twice before it is read again.
    add(folder, 2, &line(3));
    add(folder, 3, &line(4));
    assert_eq!(all(&mut reader), [line(2), line(3), line(4)]);
    // What was removed unread is gone, and what comes after it is not.
    add(folder, 3, &line(5));
    add(folder, 4, &line(6));
    add(folder, 5, &line(7));
    for number in 1..=4 {
        std::fs::remove_file(folder.join(name(number))).unwrap();
    }
    assert_eq!(all(&mut reader), [line(5), line(7)]);
    // A power cut has left half a line at the end of a file.
    let mut file = OpenOptions::new().append(true).open(folder.join(name(5))).unwrap();
    file.write_all(&text.as_bytes()[..9]).unwrap();
    add(folder, 6, &line(8));
    assert_eq!(all(&mut reader), [line(8)]);
    // The last lines begin after what is complete.
    let mut last = Reader::new(folder, &Query { lines: Some(0), ..Query::default() }, "a").unwrap();
    assert_eq!(all(&mut last), []);
    add(folder, 6, &line(9));
    assert_eq!(all(&mut last), [line(9)]);
    assert_eq!(read(folder, &Query { lines: Some(2), ..Query::default() }, "a"), [line(8), line(9)]);
}

/// Lines of a file that grows.
fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn followed_by_curl_and_by_ashlarctl() {
    let machine = Machine::start();
    let folder = machine.path("log");
    let line = |n: u64, unit: &str| entry(1_795_577_114_000_000 + n, unit, "a", 4, &format!("line {n}"));
    for n in 0..5 {
        add(&folder, 1, &line(n, "web"));
    }
    let (by_curl, by_us) = (machine.path("curl.out"), machine.path("us.out"));
    let mut processes = Vec::new();
    if let Some(mut curl) = tool("curl") {
        curl.args(["--silent", "--no-buffer", "--insecure", "--http2", "--cert", "reader.pem"])
            .arg(format!("https://{}/v1/logs?unit=web&lines=2&follow=true", machine.address))
            .current_dir(machine.folder.path())
            .stdout(File::create(&by_curl).unwrap());
        processes.push((Process(curl.spawn().unwrap()), &by_curl));
    }
    let mut us = machine.command(&["--socket", "api.sock", "logs", "-f", "-u", "web", "-n", "2"]);
    us.stdout(File::create(&by_us).unwrap()).stdin(Stdio::null());
    processes.push((Process(us.spawn().unwrap()), &by_us));
    for (_, path) in &processes {
        wait_for("the last lines", || (lines(path).len() == 2).then_some(()));
    }
    // Three rotations, the oldest removed, another unit in between.
    for n in 5..45 {
        let number = 1 + n / 10;
        add(&folder, number, &line(n, "web"));
        add(&folder, number, &line(n, "db"));
        if number == 3 {
            let _ = std::fs::remove_file(folder.join(name(1)));
        }
    }
    for (_, path) in &processes {
        wait_for("the new lines", || (lines(path).len() == 42).then_some(()));
        for (got, n) in lines(path).iter().zip(3..) {
            assert!(got.contains(&format!("line {n}")) && !got.contains("db"), "{got}");
        }
    }
    let shown = lines(&by_us);
    assert_eq!(shown.first().map(String::as_str), Some("2026-11-25 03:25:14.000003 web warning: line 3"));
}

#[test]
fn asked_for_once() {
    let machine = Machine::start();
    let folder = machine.path("log");
    for n in 0..300 {
        add(&folder, 1, &entry(n * 1_000_000, "web", "a", 6, "text"));
    }
    let logs = |arguments: &[&str]| {
        let output = machine.ashlarctl(&[&["--socket", "api.sock", "logs"], arguments].concat(), "");
        (output.code(), output.stdout.lines().count(), output.stderr)
    };
    assert_eq!((logs(&[]).0, logs(&[]).1), (0, 100));
    assert_eq!(logs(&["-n", "7"]).1, 7);
    assert_eq!(logs(&["--since", "@290"]).1, 10);
    assert_eq!(logs(&["--unit", "db"]).1, 0);
    assert_eq!(logs(&["db", "kernel"]).1, 0);
    assert_eq!(logs(&["db", "web", "-n", "5"]).1, 5);
    assert_eq!(logs(&["--since", "yesterday"]).0, 2);
    assert_eq!(logs(&["--unit", "../x"]).0, 4);
    // Who stops reading, as `head` does, gets no error.
    let mut command = machine.command(&["--socket", "api.sock", "logs", "-n", "300"]);
    let mut process = Process(command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap());
    drop(process.0.stdout.take());
    let status = wait_for("the end", || process.0.try_wait().unwrap());
    assert!(status.success(), "{status}");
    std::fs::remove_dir_all(&folder).unwrap();
    let (code, _, error) = logs(&[]);
    assert!(code == 4 && error.contains("the machine has no log"), "{error}");
    if let Some(mut curl) = tool("curl") {
        curl.args(["--silent", "--http2-prior-knowledge", "--unix-socket"]).arg(machine.path("api.sock"));
        let output = output(curl.args(["--write-out", "%{http_code}", "http://m/v1/logs?follow=true"]), b"");
        assert!(output.stdout.ends_with("404"), "{output:?}");
    }
}
