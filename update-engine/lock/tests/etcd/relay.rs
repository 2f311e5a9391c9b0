//! A slow network: a relay that lets each piece wait.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Milliseconds that each piece waits, for all relays of a test.
pub type Delay = Arc<AtomicU64>;

/// Relays to `target` and gives its own address.
pub fn relay(target: &str, delay: &Delay) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (target, delay) = (target.trim_start_matches("http://").to_owned(), delay.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let Ok(other) = TcpStream::connect_timeout(&target.parse().unwrap(), Duration::from_secs(2))
            else {
                continue;
            };
            stream.set_nodelay(true).unwrap();
            other.set_nodelay(true).unwrap();
            for (from, to) in [(stream.try_clone().unwrap(), other.try_clone().unwrap()), (other, stream)] {
                let delay = delay.clone();
                std::thread::spawn(move || pump(from, to, &delay));
            }
        }
    });
    format!("http://127.0.0.1:{port}")
}

fn pump(mut from: TcpStream, mut to: TcpStream, delay: &Delay) {
    let mut piece = [0; 16 << 10];
    while let Ok(length) = from.read(&mut piece) {
        std::thread::sleep(Duration::from_millis(delay.load(Ordering::Relaxed)));
        if length == 0 || to.write_all(&piece[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
