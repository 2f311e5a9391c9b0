//! Whether something is ready that does not say so itself: looked at from outside, without waiting.

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;

/// Whether somebody takes connections on a TCP port of 127.0.0.1.
pub fn tcp(port: u16) -> bool {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let Ok(socket) = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None) else {
        return false;
    };
    match rustix::net::connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)) {
        Ok(()) => true,
        // On this machine itself the answer is there at once, or somebody is very busy.
        Err(rustix::io::Errno::INPROGRESS) => {
            let mut poll = [PollFd::new(&socket, PollFlags::OUT)];
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            rustix::event::poll(&mut poll, Some(&now)).is_ok_and(|count| count > 0)
                && rustix::net::sockopt::socket_error(&socket).is_ok_and(|error| error.is_ok())
        }
        Err(_) => false,
    }
}

/// Whether there is a file at `path`, which is absolute, below the directory `root`. No link on the way leads out of
/// it.
pub fn file(root: &Path, path: &str) -> bool {
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(root) = rustix::fs::open(root, folder, Mode::empty()) else { return false };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve).is_ok()
}

/// Whether a process has another root than this one.
pub fn is_inside(root: &Path) -> bool {
    let place = |path: &Path| rustix::fs::stat(path).map(|status| (status.st_dev, status.st_ino)).ok();
    place(root).is_some_and(|theirs| place(Path::new("/")) != Some(theirs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn ports() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(tcp(port));
        drop(listener);
        assert!(!tcp(port));
    }

    #[test]
    fn files_do_not_lead_out() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("run")).unwrap();
        assert!(!file(folder.path(), "/run/up"));
        std::fs::write(folder.path().join("run/up"), "").unwrap();
        assert!(file(folder.path(), "/run/up"));
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("out")).unwrap();
        std::os::unix::fs::symlink("/run/up", folder.path().join("in")).unwrap();
        assert!(!file(folder.path(), "/out") && file(folder.path(), "/in"));
        assert!(!file(folder.path(), "/../../../../etc/passwd"));
        assert!(is_inside(folder.path()) && !is_inside(Path::new("/")));
    }
}
