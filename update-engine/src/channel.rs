//! The channel as the machine sees it: where it is, whom it trusts, what it offers.

use crate::error::UpdateError;
use ashlar_channel::{
    Decision, Document, MAX_DOCUMENT, Machine, Offer, Options, Why, compare, document_target, release_target,
    select,
};
use ashlar_fetch::{Bandwidth, Bundle, Http, HttpOptions, Source};
use ashlar_image::digest::Digest;
use ashlar_image::machine::{Channel, MachineConfig, Proxy};
use ashlar_image::release::Release;
use ashlar_tuf::{Bootstrap, Client, Clock, FolderStore, Limits};
use std::net::IpAddr;
use std::path::Path;

/// Longest `release.json` in bytes.
pub const MAX_RELEASE: u64 = 16 << 20;
/// Longest index of blocks in bytes.
pub const MAX_INDEX: u64 = 32 << 20;

/// An opened channel.
#[derive(Debug)]
pub struct Opened {
    /// Where its files are.
    pub source: Box<dyn Source>,
    /// Who judges them.
    pub client: Client<FolderStore>,
    /// Its document.
    pub document: Document,
}

/// What trust begins with.
fn bootstrap(channel: &Channel) -> Result<Bootstrap, UpdateError> {
    if let Some(root) = &channel.root {
        return Ok(Bootstrap::Sha256(root.0.0));
    }
    let key = channel.key.as_ref().ok_or(UpdateError::NoChannel)?;
    Ok(Bootstrap::Key(key.0))
}

/// Whether a host is reached without a proxy.
fn is_direct(host: &str, proxy: &Proxy) -> bool {
    let address = host.parse::<IpAddr>().ok();
    address.is_some_and(|address| address.is_loopback())
        || proxy.no_proxy.iter().any(|rule| {
            rule == "*"
                || rule == host
                || rule
                    .strip_prefix('.')
                    .is_some_and(|domain| host == domain || host.ends_with(rule.as_str()))
                || address.is_some_and(|address| in_network(address, rule))
        })
}

fn in_network(address: IpAddr, network: &str) -> bool {
    let Some((base, length)) = network.split_once('/') else { return false };
    let (Ok(base), Ok(length)) = (base.parse::<IpAddr>(), length.parse::<u32>()) else { return false };
    let bits = |address: IpAddr| match address {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, 32),
        IpAddr::V6(v6) => (u128::from(v6), 128),
    };
    let ((one, width), (other, other_width)) = (bits(address), bits(base));
    width == other_width && length <= width && (length == 0 || (one ^ other) >> (128 - length) == 0)
}

/// The web server of the channel in a configuration.
pub fn server(config: &MachineConfig) -> Result<Box<dyn Source>, UpdateError> {
    let channel = config.channel.as_ref().ok_or(UpdateError::NoChannel)?;
    let proxy = &config.network.proxy;
    let address = channel.url.as_str();
    let through = if channel.url.is_https() { &proxy.https } else { &proxy.http };
    let host = channel.url.host();
    let through = through.as_ref().filter(|_| !is_direct(host, proxy)).map(|url| url.as_str().to_owned());
    let bandwidth = config.update.bandwidth.map(|bytes| Bandwidth::new(bytes.0));
    Ok(Box::new(Http::new(address, HttpOptions { proxy: through, bandwidth, ..HttpOptions::default() })?))
}

/// A bundle as a channel, and the paths of what is in it.
pub fn bundle(path: &Path) -> Result<(Box<dyn Source>, Vec<String>), UpdateError> {
    let bundle = Bundle::open(path)?;
    let files = bundle.files().map(|(name, _)| name.to_owned()).collect();
    Ok((Box::new(bundle), files))
}

/// The newest release of a document that is in a bundle with these files, and not newer than `limit`: what is between is
/// passed through, if it must be, with another bundle.
pub fn newest_inside(document: &Document, files: &[String], limit: &str) -> Option<String> {
    let inside = |version: &str| {
        let folder = format!("targets/{}/", release_target(&document.image_id, version));
        files.iter().any(|file| file.starts_with(&folder))
    };
    let fits = |version: &&str| compare(version, limit).is_le() && inside(version);
    let versions = document.releases.iter().map(|offer| offer.version.as_str()).filter(fits);
    versions.max_by(|one, other| compare(one, other)).map(str::to_owned)
}

/// Fetches what is new and reads the channel's document.
pub fn open(
    source: Box<dyn Source>,
    channel: &Channel,
    trust: &Path,
    clock: Clock,
) -> Result<Opened, UpdateError> {
    let store = FolderStore::open(trust)?;
    let mut client = Client::new(store, bootstrap(channel)?, Limits::default());
    client.refresh(&*source, clock)?;
    let bytes = client.read_target(&*source, &document_target(&channel.name), MAX_DOCUMENT)?;
    let document = Document::parse(&bytes)?;
    if document.name != channel.name {
        return Err(UpdateError::Release(format!("the channel calls itself `{}`", document.name)));
    }
    Ok(Opened { source, client, document })
}

impl Opened {
    /// What this machine gets.
    pub fn decide(&self, machine: &Machine, options: &Options, now: i64) -> (Decision, Vec<Why>) {
        select(&self.document, machine, options, now)
    }

    /// The description of a release: its bytes, which are those that the channel's document names.
    pub fn release(&mut self, offer: &Offer, floor: u64) -> Result<(Release, Vec<u8>), UpdateError> {
        let name = format!("{}/release.json", release_target(&self.document.image_id, &offer.version));
        let bytes = self.client.read_target(&*self.source, &name, MAX_RELEASE)?;
        let found = Digest::of(&bytes);
        let wrong = |what: String| UpdateError::Release(what);
        if found != offer.release {
            return Err(wrong(format!("its SHA-256 is {found}, not {}", offer.release)));
        }
        let release: Release =
            serde_json::from_slice(&bytes).map_err(|error| wrong(format!("it cannot be read: {error}")))?;
        if release.image_id != self.document.image_id {
            return Err(wrong(format!("it is one of the image `{}`", release.image_id.escape_debug())));
        }
        if release.image_version != offer.version {
            return Err(wrong(format!("it is version `{}`", release.image_version.escape_debug())));
        }
        if let Some(architecture) = &release.architecture
            && *architecture != self.document.architecture
        {
            return Err(wrong(format!("it is for {}", architecture.escape_debug())));
        }
        if release.security_version != offer.security_version || release.security_version < floor {
            return Err(wrong(format!("its security version is {}", release.security_version)));
        }
        Ok((release, bytes))
    }
}

/// The architecture that this program was built for, as channels name it.
pub const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "aarch64" } else { "x86-64" };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_reached_without_a_proxy() {
        let proxy = Proxy {
            no_proxy: ["host", ".example.com", "10.0.0.0/8", "2001:db8::/32"].map(str::to_owned).to_vec(),
            ..Proxy::default()
        };
        for (host, direct) in [
            ("host", true),
            ("ghost", false),
            ("example.com", true),
            ("a.example.com", true),
            ("anexample.com", false),
            ("10.9.8.7", true),
            ("11.0.0.1", false),
            ("2001:db8::1", true),
            ("2001:db9::1", false),
            ("127.0.0.1", true),
        ] {
            assert_eq!(is_direct(host, &proxy), direct, "{host}");
        }
        let all = Proxy { no_proxy: vec!["*".into()], ..Proxy::default() };
        assert!(is_direct("anything", &all) && !is_direct("anything", &Proxy::default()));
        assert!(
            in_network("1.2.3.4".parse().unwrap(), "0.0.0.0/0")
                && !in_network("1.2.3.4".parse().unwrap(), "::/0")
        );
    }
}
