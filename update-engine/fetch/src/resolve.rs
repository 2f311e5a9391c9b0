//! Names without the C library, whose way to name services does not exist in a static program.

use hickory_resolver::TokioResolver;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// Longest time for one name.
const DEADLINE: Duration = Duration::from_secs(15);
/// Most addresses of a host that are tried.
const MAX_ADDRESSES: usize = 16;

/// Asks the servers of `/etc/resolv.conf`, which is read anew each time: the network may have changed. `/etc/hosts` goes
/// first.
#[derive(Default)]
pub struct Names;

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}

/// Addresses of a host: an address is its own. Not to be called from within an asynchronous task.
///
/// # Errors
/// A text for people.
pub fn lookup(host: &str, deadline: Duration) -> Result<Vec<IpAddr>, String> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(async {
        let resolver = TokioResolver::builder_tokio()
            .and_then(hickory_resolver::ResolverBuilder::build)
            .map_err(|e| e.to_string())?;
        let found = tokio::time::timeout(deadline, resolver.lookup_ip(host)).await;
        let found = found.map_err(|_| "no name server answers".to_owned())?.map_err(|e| e.to_string())?;
        Ok(found.iter().collect())
    })
}

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let _ = config;
        let host = uri.host().ok_or_else(|| ureq::Error::BadUri(uri.to_string()))?;
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let mut result = self.empty();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let addresses = lookup(bare, DEADLINE.min(*timeout.after)).map_err(|reason| {
            ureq::Error::Io(std::io::Error::other(format!("the name `{host}` cannot be resolved: {reason}")))
        })?;
        for address in addresses.into_iter().take(MAX_ADDRESSES) {
            result.push(SocketAddr::new(address, port));
        }
        if result.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(result) }
    }
}
