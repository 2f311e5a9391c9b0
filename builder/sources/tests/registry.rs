//! Registries: `docker-registry` and `skopeo` as the real parts.
#![allow(clippy::unwrap_used)] // a test fails by it

mod common;
#[path = "common/server.rs"]
mod server;

use ashlar_image::digest::Digest;
use ashlar_sources::{
    Credentials, Error, Image, ImageOptions, Locked, Platform, Reference, Registry, RegistryOptions,
    Transport, layout, tree_digest,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use common::{LayoutMaker, archive, cache, digest_of, file, ok, run, usual_layers};
use serde_json::json;
use server::{DockerRegistry, Small, answer};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// `builder` with the password `pa:ss wörd`, bcrypt.
const HTPASSWD: &str = "builder:$2y$05$51YJExvBmzH66ZbcuElZTeTJA2TexohOQmEQpRz/Jij87fLNWPCEW\n";
const USER: &str = "builder";
const PASSWORD: &str = "pa:ss wörd";

fn with(credentials: Credentials) -> RegistryOptions {
    RegistryOptions { credentials, patience: Duration::from_secs(10), ..RegistryOptions::default() }
}

fn anonymous() -> RegistryOptions {
    with(Credentials::Anonymous)
}

fn login() -> RegistryOptions {
    with(Credentials::Basic { user: USER.into(), password: PASSWORD.into() })
}

/// Resolves and fetches into a new cache.
fn pull(reference: &str, options: RegistryOptions) -> Result<(Locked, Image, [Digest; 2]), Error> {
    let (_folder, cache) = cache();
    let registry = Registry::new(options)?;
    let locked = registry.resolve(&reference.parse()?, &Platform::default(), &cache)?;
    let image = registry.fetch(&locked, &ImageOptions::default(), &cache)?;
    let tree = tree_digest(&image.source.tree)?;
    let digests = [image.source.digest, tree];
    Ok((locked, image, digests))
}

/// Puts the layout's image into a registry. False when skopeo is not installed.
fn push(maker: &LayoutMaker, reference: &str, more: &[&str]) -> bool {
    let source = format!("oci:{}:it", maker.path().display());
    let target = format!("docker://{reference}");
    let mut command = Command::new("skopeo");
    command.args(["--insecure-policy", "copy", "--all", "--preserve-digests", "--dest-tls-verify=false"]);
    ok(command.args(more).args([&source, &target]), "skopeo")
}

/// Two platforms behind one name.
fn two_platforms() -> (LayoutMaker, Digest, Digest) {
    let mut maker = LayoutMaker::new();
    let mut intel = maker.image(&usual_layers(), "amd64");
    let mut arm = maker.image(&[archive(&[file("arm", "")])], "arm64");
    intel["platform"] = json!({"os": "linux", "architecture": "amd64"});
    arm["platform"] = json!({"os": "linux", "architecture": "arm64"});
    let index = maker.index(&[arm, intel.clone()]);
    maker.add(index.clone(), Some("it"));
    (maker, digest_of(&index), digest_of(&intel))
}

#[test]
fn by_tag_and_by_digest_as_skopeo_gets_it() {
    let Some(server) = DockerRegistry::start("", None) else { return };
    let (maker, index, manifest) = two_platforms();
    let name = format!("{}/team/app", server.address);
    if !push(&maker, &format!("{name}:v1"), &[]) {
        return;
    }
    let (locked, image, digests) = pull(&format!("{name}:v1"), anonymous()).unwrap();
    assert_eq!((locked.digest, locked.manifest), (index, manifest));
    assert_eq!(locked.reference, format!("{name}:v1"));
    assert!(image.pinned && image.digest == manifest);
    let text = serde_json::to_string(&locked).unwrap();
    assert_eq!(serde_json::from_str::<Locked>(&text).unwrap(), locked);
    for digest in [index, manifest] {
        let (locked, _, got) = pull(&format!("{name}@sha256:{digest}"), anonymous()).unwrap();
        assert_eq!((locked.digest, locked.manifest, got), (digest, manifest, digests));
        assert_eq!(locked.reference, name);
    }
    // What skopeo gets.
    let out = tempfile::tempdir().unwrap();
    let target = format!("oci:{}", out.path().join("image").display());
    let source = format!("docker://{name}:v1");
    let mut skopeo = Command::new("skopeo");
    skopeo.args([
        "--insecure-policy",
        "--override-arch",
        "amd64",
        "copy",
        "--preserve-digests",
        "--src-tls-verify=false",
    ]);
    assert!(ok(skopeo.args([&source, &target]), "skopeo"));
    let (_folder, other) = cache();
    let judged = layout(&out.path().join("image"), &ImageOptions::default(), &other).unwrap();
    assert_eq!([judged.source.digest, tree_digest(&judged.source.tree).unwrap()], digests);
    assert_eq!((judged.config, judged.digest), (image.config, manifest));

    let error = pull(&format!("{name}:v2"), anonymous()).unwrap_err().to_string();
    assert!(
        error.contains("team/app/manifests/v2`: it answers 404") && error.contains("MANIFEST_UNKNOWN"),
        "{error}"
    );
    let error = pull(&format!("{name}@sha256:{}", Digest::of("x")), anonymous()).unwrap_err().to_string();
    assert!(error.contains("404"), "{error}");
}

#[test]
fn warm_builds_need_no_network() {
    let Some(server) = DockerRegistry::start("", None) else { return };
    let (maker, ..) = two_platforms();
    let name = format!("{}/app", server.address);
    if !push(&maker, &format!("{name}:v1"), &[]) {
        return;
    }
    let (_folder, cache) = cache();
    let reference: Reference = format!("{name}:v1").parse().unwrap();
    let online = Registry::new(anonymous()).unwrap();
    let locked = online.resolve(&reference, &Platform::default(), &cache).unwrap();
    let options = ImageOptions::default();
    let offline = Registry::new(RegistryOptions { offline: true, ..anonymous() }).unwrap();
    let error = offline.fetch(&locked, &options, &cache).unwrap_err().to_string();
    assert!(error.contains("is not in the cache; build once without `--offline`"), "{error}");
    let first = online.fetch(&locked, &options, &cache).unwrap();
    let error = offline.resolve(&reference, &Platform::default(), &cache).unwrap_err();
    assert!(matches!(error, Error::Offline(_)), "{error}");
    let by_digest: Reference = format!("{name}@sha256:{}", locked.digest).parse().unwrap();
    assert_eq!(offline.resolve(&by_digest, &Platform::default(), &cache).unwrap().manifest, locked.manifest);
    let second = offline.fetch(&locked, &options, &cache).unwrap();
    assert_eq!(first.source.digest, second.source.digest);

    // A changed byte in the cache: noticed, named, fetched again.
    let layer = &first.layers[1];
    let path = cache.blob_path(&layer.diff_id.to_string());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[700] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let third = online.fetch(&locked, &options, &cache).unwrap();
    assert!(third.source.notes[0].contains(&layer.diff_id.to_string()), "{:?}", third.source.notes);
    assert_eq!(tree_digest(&third.source.tree).unwrap(), tree_digest(&first.source.tree).unwrap());
    std::fs::write(cache.blob_path(&locked.manifest.to_string()), "{}").unwrap();
    assert_eq!(online.fetch(&locked, &options, &cache).unwrap().digest, locked.manifest);
}

#[test]
fn damage_in_the_registry_is_named() {
    let Some(server) = DockerRegistry::start("", None) else { return };
    let mut maker = LayoutMaker::new();
    let image = maker.image(&usual_layers(), "amd64");
    maker.add(image, Some("it"));
    let name = format!("{}/app:v1", server.address);
    if !push(&maker, &name, &[]) {
        return;
    }
    let (_, image, _) = pull(&name, anonymous()).unwrap();
    let blob = image.layers[1].digest.to_string();
    let path = server.blob(&blob);
    let good = std::fs::read(&path).unwrap();
    let mut bytes = good.clone();
    bytes[good.len() / 2] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let error = pull(&name, anonymous()).unwrap_err();
    assert!(matches!(&error, Error::Digest { name, .. } if name.contains(&blob)), "{error}");
    // Shorter and longer than the manifest says.
    std::fs::write(&path, &good[..good.len() - 3]).unwrap();
    let error = pull(&name, anonymous()).unwrap_err().to_string();
    let wanted = format!("{} of {} bytes", good.len() - 3, good.len());
    // The rest is asked for again, which the registry cannot give.
    assert!(error.contains(&blob) && (error.contains(&wanted) || error.contains("416")), "{error}");
    std::fs::write(&path, [good.as_slice(), b"more"].concat()).unwrap();
    let error = pull(&name, anonymous()).unwrap_err();
    assert!(matches!(&error, Error::TooLarge { name, ours: false, .. } if name.contains(&blob)), "{error}");
    std::fs::remove_file(&path).unwrap();
    let error = pull(&name, anonymous()).unwrap_err().to_string();
    assert!(error.contains(&blob) && error.contains("404"), "{error}");
}

#[test]
fn logins_by_password_and_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("htpasswd");
    std::fs::write(&path, HTPASSWD).unwrap();
    let auth = format!("auth:\n  htpasswd:\n    realm: a \"realm\"\n    path: {}\n", path.display());
    let Some(server) = DockerRegistry::start(&auth, None) else { return };
    let (maker, ..) = two_platforms();
    let name = format!("{}/private/app:v1", server.address);
    if !push(&maker, &name, &["--dest-creds", &format!("{USER}:{PASSWORD}")]) {
        return;
    }
    let (_, _, digests) = pull(&name, login()).unwrap();
    // The file that `skopeo login` writes.
    let file = folder.path().join("auth.json");
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["login", "--tls-verify=false", "--authfile"]).arg(&file);
    skopeo.args(["--username", USER, "--password", PASSWORD, &server.address.to_string()]);
    assert!(ok(&mut skopeo, "skopeo"));
    let (_, _, got) = pull(&name, with(Credentials::File(file.clone()))).unwrap();
    assert_eq!(got, digests);

    let error = pull(&name, anonymous()).unwrap_err().to_string();
    assert!(error.contains("it wants a login; make one with `skopeo login"), "{error}");
    let wrong = Credentials::Basic { user: USER.into(), password: "wrong-password".into() };
    let error = pull(&name, with(wrong)).unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    let error = error.to_string();
    assert!(
        error.contains("401") && error.contains("is the login right") && !error.contains("wrong-"),
        "{error}"
    );
}

/// A CA, and a server certificate for this machine. None when openssl is not installed.
fn certificates(folder: &Path, name: &str, subject: &str) -> Option<()> {
    let file = |suffix: &str| folder.join(format!("{name}{suffix}"));
    let mut ca = Command::new("openssl");
    ca.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", subject]);
    if !ok(ca.arg("-keyout").arg(file("-ca.key")).arg("-out").arg(file("-ca.crt")), "openssl") {
        return None;
    }
    let mut request = Command::new("openssl");
    request.args(["req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1"]);
    assert!(ok(request.arg("-keyout").arg(file(".key")).arg("-out").arg(file(".csr")), "openssl"));
    std::fs::write(file(".ext"), "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n").unwrap();
    let mut sign = Command::new("openssl");
    sign.args(["x509", "-req", "-days", "2", "-CAcreateserial", "-in"]).arg(file(".csr"));
    sign.arg("-CA").arg(file("-ca.crt")).arg("-CAkey").arg(file("-ca.key"));
    assert!(ok(sign.arg("-extfile").arg(file(".ext")).arg("-out").arg(file(".crt")), "openssl"));
    Some(())
}

#[test]
fn tls_with_the_ca_that_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for (name, subject) in [("right", "/CN=test CA"), ("wrong", "/CN=test CA"), ("other", "/CN=other CA")] {
        if certificates(folder.path(), name, subject).is_none() {
            return;
        }
    }
    let tls = (path("right.crt"), path("right.key"));
    let Some(server) = DockerRegistry::start("", Some((&tls.0, &tls.1))) else { return };
    let (maker, ..) = two_platforms();
    let name = format!("{}/app:v1", server.address);
    if !push(&maker, &name, &[]) {
        return;
    }
    let ca = |name: &str| RegistryOptions { ca_file: Some(path(name)), ..anonymous() };
    pull(&name, ca("right-ca.crt")).unwrap();
    // A CA of another name, and one of the same name with another key.
    for options in [
        ca("other-ca.crt"),
        ca("wrong-ca.crt"),
        RegistryOptions { transport: Transport::Https, ..anonymous() },
    ] {
        let error = pull(&name, options).unwrap_err().to_string();
        assert!(error.contains("its certificate cannot be trusted"), "{error}");
    }
    let error = pull(&name, ca("none.crt")).unwrap_err().to_string();
    assert!(error.contains("none.crt` cannot be used: it is not there"), "{error}");
    let error = pull(&name, ca("right.csr")).unwrap_err().to_string();
    assert!(error.contains("no certificate"), "{error}");
    // Without TLS to a server that has it, and the other way round.
    let error =
        pull(&name, RegistryOptions { transport: Transport::Http, ..anonymous() }).unwrap_err().to_string();
    assert!(error.contains("400"), "{error}");
    let Some(plain) = DockerRegistry::start("", None) else { return };
    let name = format!("{}/app:v1", plain.address);
    let error = pull(&name, ca("right-ca.crt")).unwrap_err().to_string();
    assert!(error.contains("does not speak TLS"), "{error}");
}

/// A token as `docker-registry` wants it (JSON Web Token, RS256), signed by openssl.
fn token(folder: &Path, scope: &str) -> String {
    let (kind, rest) = scope.split_once(':').unwrap_or_default();
    let (name, actions) = rest.rsplit_once(':').unwrap_or_default();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let certificate = std::fs::read_to_string(folder.join("token-ca.crt")).unwrap();
    let der: String = certificate.lines().filter(|line| !line.starts_with('-')).collect();
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let head = part(json!({"typ": "JWT", "alg": "RS256", "x5c": [der]}));
    let claims = part(json!({
        "iss": "test issuer", "sub": USER, "aud": "test service", "jti": "1", "iat": now - 60, "nbf": now - 60,
        "exp": now + 600, "access": [{"type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>()}],
    }));
    let signed = format!("{head}.{claims}");
    let file = tempfile::NamedTempFile::new_in(folder).unwrap();
    std::fs::write(file.path(), &signed).unwrap();
    let mut command = Command::new("openssl");
    command.args(["dgst", "-sha256", "-sign"]).arg(folder.join("token-ca.key")).arg(file.path());
    let signature = run(&mut command, "openssl").unwrap().stdout;
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn tokens_that_the_registry_verifies() {
    let folder = tempfile::tempdir().unwrap();
    if certificates(folder.path(), "token", "/CN=tokens").is_none() {
        return;
    }
    let keys = folder.path().to_owned();
    let wanted = format!("authorization: basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
    let tokens = Small::start(move |_, head| {
        if !head.to_ascii_lowercase().contains(&wanted.to_ascii_lowercase()) {
            return answer(
                "401 Unauthorized",
                "",
                br#"{"errors":[{"code":"DENIED","message":"who are you?"}]}"#,
            );
        }
        let query = head.split(' ').nth(1).unwrap_or_default();
        let scope = query.split(['?', '&']).find_map(|pair| pair.strip_prefix("scope=")).unwrap_or_default();
        let scope = scope.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",");
        answer("200 OK", "", json!({"token": token(&keys, &scope)}).to_string().as_bytes())
    });
    let auth = format!(
        "auth:\n  token:\n    realm: http://{}/token\n    service: test service\n    issuer: test issuer\n    rootcertbundle: {}\n",
        tokens.address,
        folder.path().join("token-ca.crt").display()
    );
    let Some(server) = DockerRegistry::start(&auth, None) else { return };
    let (maker, ..) = two_platforms();
    let name = format!("{}/team/app:v1", server.address);
    if !push(&maker, &name, &["--dest-creds", &format!("{USER}:{PASSWORD}")]) {
        return;
    }
    let before = tokens.heads().len();
    let (_, image, _) = pull(&name, login()).unwrap();
    assert_eq!(image.layers.len(), 3);
    // One token for all requests, for reading this repository and nothing else.
    let heads = tokens.heads().split_off(before);
    assert_eq!(heads.len(), 1, "{heads:?}");
    assert!(
        heads[0].starts_with("GET /token?service=test%20service&scope=repository%3Ateam%2Fapp%3Apull HTTP"),
        "{heads:?}"
    );
    let error = pull(&name, anonymous()).unwrap_err().to_string();
    assert!(
        error.contains("the token server `http://127.0.0.1") && error.contains("who are you?"),
        "{error}"
    );
}

/// What a small server serves as a repository: an image whose only layer is `layer`.
fn image_documents(layer: &[u8]) -> (String, String, Digest) {
    let config = json!({"rootfs": {"diff_ids": [format!("sha256:{}", Digest::of(layer))]}}).to_string();
    let manifest = json!({"schemaVersion": 2, "config": {"digest": format!("sha256:{}", Digest::of(&config)), "size": config.len()},
        "layers": [{"mediaType": common::LAYER, "digest": format!("sha256:{}", Digest::of(layer)), "size": layer.len()}]});
    (manifest.to_string(), config, Digest::of(layer))
}

#[test]
fn a_broken_download_goes_on_where_it_stopped() {
    let layer = archive(&[file("a", &"0123456789".repeat(40_000))]);
    let (manifest, config, digest) = image_documents(&layer);
    let served = layer.clone();
    // Each connection gives a third at most. The first answer to a range is ignored by the server, as it may be.
    let server = Small::start(move |_, head| {
        let path = head.split(' ').nth(1).unwrap_or_default();
        if path.contains("/manifests/") {
            return answer("200 OK", "", manifest.as_bytes());
        }
        if !path.contains(&digest.to_string()) {
            return answer("200 OK", "", config.as_bytes());
        }
        let range = head.to_ascii_lowercase();
        let range = range.lines().find_map(|line| line.strip_prefix("range: bytes=")?.strip_suffix('-'));
        let from: usize = range.map_or(0, |range| range.parse().unwrap());
        let (status, extra) = match from {
            0 => ("200 OK", String::new()),
            _ => (
                "206 Partial Content",
                format!("content-range: bytes {from}-{}/{}\r\n", served.len() - 1, served.len()),
            ),
        };
        let mut bytes = answer(status, &extra, &served[from..]);
        let head = bytes.len() - (served.len() - from);
        bytes.truncate(head + (served.len() / 3 + 1).min(served.len() - from));
        bytes
    });
    let (_, image, _) = pull(&format!("{}/app:v1", server.address), anonymous()).unwrap();
    assert_eq!(image.layers[0].digest, Digest::of(&layer));
    let ranges: Vec<String> = server
        .heads()
        .iter()
        .filter_map(|head| {
            head.to_ascii_lowercase().lines().find(|l| l.starts_with("range:")).map(str::to_owned)
        })
        .collect();
    assert_eq!(ranges.len(), 2, "{ranges:?}");
}

#[test]
fn what_an_earlier_build_left_is_used_or_thrown_away() {
    let layer = archive(&[file("a", &"0123456789".repeat(4000))]);
    let (manifest, config, digest) = image_documents(&layer);
    let served = layer.clone();
    let server = Small::start(move |_, head| {
        let path = head.split(' ').nth(1).unwrap_or_default();
        if path.contains("/manifests/") {
            return answer("200 OK", "", manifest.as_bytes());
        }
        // This server knows no ranges.
        answer("200 OK", "", if path.contains(&digest.to_string()) { &served } else { config.as_bytes() })
    });
    for left in [&layer[..1000], &[7; 1000], &vec![7; layer.len()], &vec![7; layer.len() + 1]] {
        let (_folder, cache) = cache();
        std::fs::write(cache.partial(&format!("blob-{digest}")), left).unwrap();
        let registry = Registry::new(anonymous()).unwrap();
        let reference = format!("{}/app:v1", server.address).parse().unwrap();
        let locked = registry.resolve(&reference, &Platform::default(), &cache).unwrap();
        let image = registry.fetch(&locked, &ImageOptions::default(), &cache).unwrap();
        assert!(image.source.tree.get(b"/a").is_some());
    }
}

#[test]
fn a_login_never_reaches_another_host() {
    let layer = archive(&[file("a", "")]);
    let (manifest, config, digest) = image_documents(&layer);
    let served = layer.clone();
    let storage = Small::start(move |_, _| answer("200 OK", "", &served));
    let other = storage.address;
    let server = Small::start(move |_, head| {
        if !head.to_ascii_lowercase().contains("authorization: basic") {
            return answer("401 Unauthorized", "www-authenticate: Basic realm=\"x\"\r\n", b"");
        }
        let path = head.split(' ').nth(1).unwrap_or_default();
        if path.contains("/manifests/") {
            return answer("200 OK", "", manifest.as_bytes());
        }
        if path.contains(&digest.to_string()) {
            return answer(
                "307 Temporary Redirect",
                &format!("location: http://{other}/blob?sig=1\r\n"),
                b"",
            );
        }
        answer("200 OK", "", config.as_bytes())
    });
    pull(&format!("{}/app:v1", server.address), login()).unwrap();
    let heads = storage.heads();
    assert_eq!(heads.len(), 1);
    assert!(
        heads[0].starts_with("GET /blob?sig=1 ") && !heads[0].to_ascii_lowercase().contains("authorization"),
        "{heads:?}"
    );
}

#[test]
fn servers_that_lead_astray_are_refused() {
    let error = |server: &Small, options| {
        pull(&format!("{}/app:v1", server.address), options).unwrap_err().to_string()
    };
    let looping = Small::start(|address, _| {
        answer("302 Found", &format!("location: http://{address}/v2/app/manifests/v1\r\n"), b"")
    });
    let text = error(&looping, anonymous());
    assert!(text.contains("it redirects more than 5 times"), "{text}");
    let nowhere = Small::start(|_, _| answer("302 Found", "location: file:///etc/passwd\r\n", b""));
    assert!(error(&nowhere, anonymous()).contains("to no place that can be used"));
    let huge = Small::start(|_, _| answer("200 OK", "", &vec![b' '; (4 << 20) + 1]));
    let text = error(&huge, anonymous());
    assert!(text.contains("is larger than 4194304 bytes, which is the limit"), "{text}");
    let liar = Small::start(|_, _| {
        let other = format!("docker-content-digest: sha256:{}\r\n", Digest::of("other"));
        answer("200 OK", &other, b"{}")
    });
    assert!(error(&liar, anonymous()).contains("and not"), "{}", error(&liar, anonymous()));
    let html = Small::start(|_, _| answer("200 OK", "", b"<html>please log in</html>"));
    assert!(error(&html, anonymous()).contains("cannot be used: "), "{}", error(&html, anonymous()));

    // Where tokens are got: never without TLS on another host, never elsewhere.
    for realm in ["http://tokens.example/token", "ftp://127.0.0.1/", "file:///etc/passwd", ""] {
        let header = format!("www-authenticate: Bearer realm=\"{realm}\",service=\"x\"\r\n");
        let thief = Small::start(move |_, _| answer("401 Unauthorized", &header, b""));
        let text = error(&thief, login());
        assert!(text.contains("which cannot be trusted with a login"), "{text}");
    }
    let strange = Small::start(|_, _| answer("401 Unauthorized", "www-authenticate: Negotiate\r\n", b""));
    assert!(error(&strange, login()).contains("a kind of login that is not known"));
    let gone = format!(
        "127.0.0.1:{}/app:v1",
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    );
    let text = pull(&gone, anonymous()).unwrap_err().to_string();
    assert!(
        text.contains("does not give `app/manifests/v1`") && text.to_lowercase().contains("refused"),
        "{text}"
    );
}

#[test]
fn a_broken_server_is_asked_again() {
    let layer = archive(&[file("a", "")]);
    let (manifest, config, digest) = image_documents(&layer);
    let count = std::sync::atomic::AtomicUsize::new(0);
    let server = Small::start(move |_, head| {
        if count.fetch_add(1, std::sync::atomic::Ordering::SeqCst).is_multiple_of(2) {
            return answer(
                "503 Service Unavailable",
                "",
                br#"{"errors":[{"code":"UNAVAILABLE","message":"later\u001b[31m"}]}"#,
            );
        }
        let path = head.split(' ').nth(1).unwrap_or_default();
        if path.contains("/manifests/") {
            return answer("200 OK", "", manifest.as_bytes());
        }
        answer("200 OK", "", if path.contains(&digest.to_string()) { &layer } else { config.as_bytes() })
    });
    pull(&format!("{}/app:v1", server.address), anonymous()).unwrap();
    let never = Small::start(|_, _| {
        answer(
            "503 Service Unavailable",
            "",
            br#"{"errors":[{"code":"UNAVAILABLE","message":"later\u001b[31m"}]}"#,
        )
    });
    let text = pull(&format!("{}/app:v1", never.address), anonymous()).unwrap_err().to_string();
    assert!(text.contains("503") && text.contains("UNAVAILABLE: later[31m"), "{text}");
}

#[test]
fn tokens_that_get_tokens() {
    let layer = archive(&[file("a", "")]);
    let (manifest, config, digest) = image_documents(&layer);
    let server = Small::start(move |address, head| {
        if head.starts_with("POST /token") {
            return answer("200 OK", "", br#"{"access_token": "short.lived"}"#);
        }
        if !head.to_ascii_lowercase().contains("authorization: bearer short.lived") {
            let header =
                format!("www-authenticate: Bearer realm=\"http://{address}/token\",service=\"s\"\r\n");
            return answer("401 Unauthorized", &header, b"");
        }
        let path = head.split(' ').nth(1).unwrap_or_default();
        if path.contains("/manifests/") {
            return answer("200 OK", "", manifest.as_bytes());
        }
        answer("200 OK", "", if path.contains(&digest.to_string()) { &layer } else { config.as_bytes() })
    });
    let path = tempfile::NamedTempFile::new().unwrap();
    let auths = json!({"auths": {server.address.to_string(): {"identitytoken": "long+lived"}}});
    std::fs::write(path.path(), auths.to_string()).unwrap();
    let credentials = Credentials::File(path.path().to_owned());
    pull(&format!("{}/app:v1", server.address), with(credentials)).unwrap();
    let post = server.heads().into_iter().find(|head| head.starts_with("POST")).unwrap();
    assert!(
        post.contains("grant_type=refresh_token") && post.ends_with("&refresh_token=long%2Blived"),
        "{post}"
    );
}

/// The environment of a process cannot be changed safely, so this test runs itself again.
#[test]
fn proxies_of_the_environment() {
    const INNER: &str = "ASHLAR_TEST_ASKS_THROUGH_A_PROXY";
    if std::env::var_os(INNER).is_some() {
        let options = RegistryOptions { transport: Transport::Https, ..anonymous() };
        let error = pull("registry.example:5000/app:v1", options).unwrap_err().to_string();
        assert!(error.contains("registry.example:5000 does not give"), "{error}");
        // This machine itself is not asked through a proxy.
        let local = Small::start(|_, _| answer("404 Not Found", "", b""));
        let error = pull(&format!("{}/app:v1", local.address), anonymous()).unwrap_err().to_string();
        assert!(error.contains("404"), "{error}");
        return;
    }
    let proxy = Small::start(|_, _| answer("403 Forbidden", "", b""));
    let mut inner = Command::new(std::env::current_exe().unwrap());
    inner.args(["--exact", "proxies_of_the_environment"]).env(INNER, "1");
    for name in [
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "no_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
    ] {
        inner.env_remove(name);
    }
    inner
        .env("HTTPS_PROXY", format!("http://{}", proxy.address))
        .env("HTTP_PROXY", format!("http://{}", proxy.address));
    let output = run(&mut inner, "").unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let heads = proxy.heads();
    assert!(
        !heads.is_empty() && heads.iter().all(|head| head.starts_with("CONNECT registry.example:5000 ")),
        "{heads:?}"
    );
}
