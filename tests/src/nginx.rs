//! A plain web server of files: nginx, on loopback.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long it may take to answer.
const UP: Duration = Duration::from_secs(20);

/// A running server; it ends with this value.
#[derive(Debug)]
pub struct Nginx {
    child: Child,
    /// Its port.
    pub port: u16,
    folder: PathBuf,
}

impl Nginx {
    /// Serves the files below `root`; what it needs itself is kept in `folder`.
    pub fn serve(root: &Path, folder: &Path) -> Self {
        fs::create_dir_all(folder).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let place = folder.display();
        let config = format!(
            "worker_processes 1;\npid {place}/pid;\nerror_log {place}/error.log;\nuser root;\nevents {{}}\n\
             http {{\n  access_log {place}/access.log;\n  client_body_temp_path {place}/body;\n  \
             proxy_temp_path {place}/proxy;\n  fastcgi_temp_path {place}/fastcgi;\n  uwsgi_temp_path {place}/uwsgi;\n  \
             scgi_temp_path {place}/scgi;\n  server {{ listen 127.0.0.1:{port}; root {}; }}\n}}\n",
            root.display()
        );
        fs::write(folder.join("nginx.conf"), config).unwrap();
        let child = Command::new("/usr/sbin/nginx")
            .arg("-c")
            .arg(folder.join("nginx.conf"))
            .args(["-g", "daemon off;"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, port, folder: folder.to_owned() };
        let until = Instant::now() + UP;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "nginx does not answer: {}", server.errors());
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    /// What it has logged of requests.
    pub fn requests(&self) -> String {
        fs::read_to_string(self.folder.join("access.log")).unwrap_or_default()
    }

    fn errors(&self) -> String {
        fs::read_to_string(self.folder.join("error.log")).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its worker ends with it.
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.child),
            rustix::process::Signal::TERM,
        );
        let _ = self.child.wait();
    }
}
