//! What both bills of materials are written from: the release, its packages, containers and other sources.

use crate::SbomError;
use crate::control::{field, paragraphs, synopsis};
use crate::copyright::Declared;
use ashlar_image::digest::Digest;
use ashlar_image::release::Release;
use packageurl::PackageUrl;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Everything that a release consists of.
#[derive(Debug, Clone)]
pub struct Bill<'a> {
    /// The release.
    pub release: &'a Release,
    /// SHA-256 of its `release.json`; the documents' identities come from it.
    pub release_digest: Digest,
    /// The distribution in package URLs: `trixie`, `debian-13`.
    pub distribution: Option<String>,
    /// Version of the program that built the release.
    pub builder_version: String,
    /// The Debian packages, part by part; those in two parts occur twice.
    pub packages: Vec<DebianPackage>,
    /// The containers in the root.
    pub containers: Vec<Container>,
    /// What came from elsewhere.
    pub sources: Vec<OtherSource>,
}

/// A Debian package in one part of the image, from a suite or a local file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DebianPackage {
    /// `root`, `kernel` or `container NAME`, as in `release.json`.
    pub part: String,
    /// Binary package name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Architecture.
    pub architecture: String,
    /// SHA-256 of the package file.
    pub sha256: Digest,
    /// Name of the source package.
    pub source: String,
    /// Version of the source package.
    pub source_version: String,
    /// `Name <address>`.
    pub maintainer: Option<String>,
    /// Home page of the project.
    pub homepage: Option<String>,
    /// One line about it.
    pub summary: Option<String>,
    /// Its licences.
    pub declared: Declared,
    /// Names of packages of the same part that its dependencies were resolved to.
    pub depends_on: Vec<String>,
    /// Where it was fetched from, if that is to be published.
    pub download: Option<String>,
}

/// A container of the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Name in the recipe.
    pub name: String,
    /// Where its files come from.
    pub origin: Origin,
}

/// Where a container's files come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// Debian packages of the part `container NAME`.
    Packages,
    /// An OCI image.
    Oci {
        /// As the recipe names it (`registry.example/team/app:1.2`); none for a layout in a folder.
        reference: Option<String>,
        /// Digest of the image's manifest.
        digest: Digest,
    },
}

/// Files that are neither from a Debian package nor from an OCI image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherSource {
    /// The part that it went to: `root` or `container NAME`.
    pub part: String,
    /// As the recipe names it.
    pub name: String,
    /// What it is.
    pub kind: SourceKind,
    /// SHA-256 of the archive, or of the folder's content as the builder defines it.
    pub digest: Digest,
}

/// Kinds of other sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SourceKind {
    /// A folder of the build host.
    Directory,
    /// A tar archive.
    Tar,
    /// A file, or text in the recipe.
    File,
}

impl SourceKind {
    /// The word in properties and comments.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Tar => "tar",
            Self::File => "file",
        }
    }
}

impl DebianPackage {
    /// From the package's control file (deb-control(5)).
    ///
    /// # Errors
    /// [`SbomError::Control`] when name, version or architecture is missing.
    pub fn from_control(
        part: &str,
        control: &str,
        sha256: Digest,
        declared: Declared,
    ) -> Result<Self, SbomError> {
        let all = paragraphs(control);
        let fields = all.first().map_or(&[][..], Vec::as_slice);
        let optional = |name: &str| field(fields, name).filter(|value| !value.is_empty()).map(str::to_owned);
        let named = optional("package").unwrap_or_default();
        let required = |name: &str, shown: &'static str| {
            optional(name).ok_or_else(|| SbomError::Control { package: named.clone(), field: shown })
        };
        let (name, version) = (required("package", "Package")?, required("version", "Version")?);
        // `Source: busybox (1:1.37.0-6)`: the version only where it is another one.
        let source = optional("source").unwrap_or_else(|| name.clone());
        let (source, source_version) = match source.split_once('(') {
            Some((source, rest)) => (source.trim().to_owned(), rest.trim_end_matches(')').trim().to_owned()),
            None => (source, version.clone()),
        };
        Ok(Self {
            part: part.to_owned(),
            architecture: required("architecture", "Architecture")?,
            sha256,
            source,
            source_version,
            maintainer: optional("maintainer"),
            homepage: optional("homepage").filter(|url| is_url(url)),
            summary: optional("description").map(|text| synopsis(&text).0.to_owned()),
            declared,
            depends_on: Vec::new(),
            download: None,
            name,
            version,
        })
    }

    /// The package URL (purl-spec, type `deb`); the source package is in the qualifier `upstream`.
    ///
    /// # Errors
    /// [`SbomError::Purl`] for a name that cannot be in one.
    pub fn purl(&self, distribution: Option<&str>) -> Result<String, SbomError> {
        let upstream = if self.source_version == self.version {
            self.source.clone()
        } else {
            format!("{}@{}", self.source, self.source_version)
        };
        let upstream = (upstream != self.name).then_some(upstream);
        let qualifiers = [
            ("arch", Some(self.architecture.as_str())),
            ("distro", distribution),
            ("upstream", upstream.as_deref()),
        ];
        purl("deb", Some("debian"), &self.name, Some(&self.version), &qualifiers)
    }

    /// Name and address of the maintainer.
    pub(crate) fn contact(&self) -> Option<(&str, Option<&str>)> {
        let text = self.maintainer.as_deref()?;
        Some(match text.split_once('<') {
            Some((name, address)) => (
                name.trim().trim_matches('"'),
                Some(address.trim().trim_end_matches('>')).filter(|a| a.contains('@')),
            ),
            None => (text.trim(), None),
        })
    }
}

/// Whether this can be published as an address of the web.
fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|rest| {
        !rest.is_empty() && rest.chars().all(|c| c.is_ascii_graphic() && !"<>\"{}|\\^`".contains(c))
    })
}

/// A package URL; qualifiers without a value are left out.
fn purl(
    kind: &str,
    namespace: Option<&str>,
    name: &str,
    version: Option<&str>,
    qualifiers: &[(&'static str, Option<&str>)],
) -> Result<String, SbomError> {
    let fail = |error: packageurl::Error| SbomError::Purl { name: name.to_owned(), why: error.to_string() };
    let mut url = PackageUrl::new(kind.to_owned(), name.to_owned()).map_err(fail)?;
    if let Some(namespace) = namespace {
        url.with_namespace(namespace.to_owned()).map_err(fail)?;
    }
    if let Some(version) = version {
        url.with_version(version.to_owned()).map_err(fail)?;
    }
    for (key, value) in qualifiers {
        if let Some(value) = value {
            url.add_qualifier(*key, (*value).to_owned()).map_err(fail)?;
        }
    }
    Ok(url.to_string())
}

impl Container {
    /// The package URL of an OCI image (purl-spec, type `oci`); none for one of packages.
    ///
    /// # Errors
    /// [`SbomError::Purl`] for a name that cannot be in one.
    pub fn purl(&self) -> Result<Option<String>, SbomError> {
        let Origin::Oci { reference, digest } = &self.origin else { return Ok(None) };
        let digest = format!("sha256:{digest}");
        let plain = reference.as_deref().map(|text| text.split_once('@').map_or(text, |(before, _)| before));
        // A colon behind the last slash begins a tag; one before it a port.
        let (repository, tag) = match plain {
            None => (None, None),
            Some(text) => {
                match text.rfind(':').filter(|at| text.rfind('/').is_none_or(|slash| slash < *at)) {
                    Some(at) => (text.get(..at), text.get(at + 1..)),
                    None => (Some(text), None),
                }
            }
        };
        let name = repository.and_then(|text| text.rsplit('/').next()).unwrap_or(&self.name);
        let qualifiers = [("arch", Some("amd64")), ("repository_url", repository), ("tag", tag)];
        purl("oci", None, name, Some(&digest), &qualifiers).map(Some)
    }
}

/// What a component is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Image,
    File,
    Kernel,
    Init,
    Debian,
    Container,
    Oci,
    Source,
}

/// One entry of a bill.
#[derive(Debug, Clone)]
pub(crate) struct Component<'a> {
    /// Unique in the document: the package URL, or a name of our own.
    pub key: String,
    pub kind: Kind,
    pub name: String,
    pub version: Option<String>,
    pub purl: Option<String>,
    pub sha256: Option<Digest>,
    pub package: Option<&'a DebianPackage>,
    /// More facts by name; the names begin with `ashlar:`.
    pub facts: Vec<(&'static str, String)>,
}

/// All components and what lies in what, by index; the image is the first.
pub(crate) struct Graph<'a> {
    pub components: Vec<Component<'a>>,
    pub contains: BTreeSet<(usize, usize)>,
    pub depends: BTreeSet<(usize, usize)>,
}

impl<'a> Graph<'a> {
    fn add(&mut self, component: Component<'a>) -> usize {
        self.components.push(component);
        self.components.len() - 1
    }

    fn file(
        &mut self,
        artifact: &ashlar_image::release::Artifact,
        facts: Vec<(&'static str, String)>,
    ) -> usize {
        self.add(Component {
            key: format!("file:{}", artifact.file),
            kind: Kind::File,
            name: artifact.file.clone(),
            version: None,
            purl: None,
            sha256: Some(artifact.sha256),
            package: None,
            facts,
        })
    }

    /// The whole bill.
    pub(crate) fn of(bill: &'a Bill<'_>) -> Result<Self, SbomError> {
        let mut graph = Self { components: Vec::new(), contains: BTreeSet::new(), depends: BTreeSet::new() };
        let release = bill.release;
        let image = graph.add(Component {
            key: format!("image:{}@{}", release.image_id, release.image_version),
            kind: Kind::Image,
            name: release.image_id.clone(),
            version: Some(release.image_version.clone()),
            purl: None,
            sha256: None,
            package: None,
            facts: vec![
                ("ashlar:release-json-sha256", bill.release_digest.to_string()),
                ("ashlar:root-hash", release.root_hash.to_string()),
                ("ashlar:security-version", release.security_version.to_string()),
                ("ashlar:uki-authenticode", release.uki.authenticode.to_string()),
                ("ashlar:uki-sha256", release.uki.artifact.sha256.to_string()),
            ],
        });
        let uki_facts = vec![
            ("ashlar:authenticode", release.uki.authenticode.to_string()),
            ("ashlar:cmdline", release.uki.cmdline.clone()),
            ("ashlar:stub-version", release.uki.stub_version.clone()),
        ];
        let esp = graph.file(&release.slot.esp, Vec::new());
        let root = graph.file(&release.slot.root, vec![("ashlar:root-hash", release.root_hash.to_string())]);
        let verity = graph.file(&release.slot.verity, Vec::new());
        let uki = graph.file(&release.uki.artifact, uki_facts);
        let kernel = graph.add(Component {
            key: format!("kernel:{}", release.kernel),
            kind: Kind::Kernel,
            name: "linux".into(),
            version: Some(release.kernel.clone()),
            purl: None,
            sha256: release.uki.sections.get(".linux").copied(),
            package: None,
            facts: vec![("ashlar:authenticode", release.uki.kernel_authenticode.to_string())],
        });
        let init = graph.add(Component {
            key: "init:ashlar-init".into(),
            kind: Kind::Init,
            name: "ashlar-init".into(),
            version: Some(bill.builder_version.clone()),
            purl: None,
            sha256: Some(release.init),
            package: None,
            facts: Vec::new(),
        });
        let inside = [
            (image, esp),
            (image, root),
            (image, verity),
            (esp, uki),
            (uki, kernel),
            (uki, init),
            (root, init),
        ];
        graph.contains.extend(inside);

        // Kernel packages give the UKI its kernel and stub and the root its modules, so they are the image's.
        let mut parts = BTreeMap::from([("root".to_owned(), root), ("kernel".to_owned(), image)]);
        for container in &bill.containers {
            let purl = container.purl()?;
            let (kind, sha256) = match container.origin {
                Origin::Packages => (Kind::Container, None),
                Origin::Oci { digest, .. } => (Kind::Oci, Some(digest)),
            };
            let at = graph.add(Component {
                key: format!("container:{}", container.name),
                kind,
                name: container.name.clone(),
                version: sha256.map(|digest| format!("sha256:{digest}")),
                purl,
                sha256,
                package: None,
                facts: Vec::new(),
            });
            graph.contains.insert((root, at));
            parts.insert(format!("container {}", container.name), at);
        }
        graph.packages(bill, image, &parts)?;
        for source in &bill.sources {
            let at = graph.add(Component {
                key: format!("source:{}:{}:{}", source.part, source.name, source.digest),
                kind: Kind::Source,
                name: source.name.clone(),
                version: None,
                purl: None,
                sha256: Some(source.digest),
                package: None,
                facts: vec![("ashlar:source-kind", source.kind.word().to_owned())],
            });
            graph.contains.insert((parts.get(&source.part).copied().unwrap_or(image), at));
        }
        Ok(graph)
    }

    /// The same package file in two parts is one component that both contain.
    fn packages(
        &mut self,
        bill: &'a Bill<'_>,
        image: usize,
        parts: &BTreeMap<String, usize>,
    ) -> Result<(), SbomError> {
        let mut by_file: BTreeMap<(String, Digest), usize> = BTreeMap::new();
        let mut by_name: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        let mut keys: BTreeSet<String> = BTreeSet::new();
        let mut sorted: Vec<&DebianPackage> = bill.packages.iter().collect();
        sorted.sort_by_key(|p| (&p.name, &p.version, &p.architecture, p.sha256, &p.part));
        for package in sorted.iter().copied() {
            let purl = package.purl(bill.distribution.as_deref())?;
            let at = match by_file.get(&(purl.clone(), package.sha256)) {
                Some(at) => *at,
                None => {
                    // A package rebuilt at home may have the version of the archive's.
                    let key = if keys.insert(purl.clone()) {
                        purl.clone()
                    } else {
                        format!("{purl}#{}", package.sha256)
                    };
                    let at = self.add(Component {
                        key,
                        kind: Kind::Debian,
                        name: package.name.clone(),
                        version: Some(package.version.clone()),
                        purl: Some(purl.clone()),
                        sha256: Some(package.sha256),
                        package: Some(package),
                        facts: Vec::new(),
                    });
                    by_file.insert((purl, package.sha256), at);
                    at
                }
            };
            by_name.insert((&package.part, &package.name), at);
            self.contains.insert((parts.get(&package.part).copied().unwrap_or(image), at));
        }
        for package in sorted {
            let Some(from) = by_name.get(&(package.part.as_str(), package.name.as_str())) else { continue };
            for name in &package.depends_on {
                if let Some(to) = by_name.get(&(package.part.as_str(), name.as_str()))
                    && from != to
                {
                    self.depends.insert((*from, *to));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_file_and_its_url() {
        let control = "Package: busybox-static\nSource: busybox (1:1.37.0-6)\nVersion: 1:1.37.0-6+b9\nArchitecture: \
                       amd64\nMaintainer: Debian Install System Team <debian-boot@lists.debian.org>\nHomepage: \
                       http://www.busybox.net\nDescription: Standalone rescue shell\n more\n";
        let package =
            DebianPackage::from_control("root", control, Digest::ZERO, Declared::default()).unwrap();
        assert_eq!(
            package.purl(Some("trixie")).unwrap(),
            "pkg:deb/debian/busybox-static@1:1.37.0-6%2Bb9?arch=amd64&distro=trixie&upstream=busybox%401:1.37.0-6"
        );
        assert_eq!(
            package.contact().unwrap(),
            ("Debian Install System Team", Some("debian-boot@lists.debian.org"))
        );
        assert_eq!(package.summary.as_deref(), Some("Standalone rescue shell"));
        let error = DebianPackage::from_control("root", "Package: a\n", Digest::ZERO, Declared::default())
            .unwrap_err();
        assert!(error.to_string().contains("`a` has no field `Version`"), "{error}");
        assert!(!is_url("javascript:x") && !is_url("https://a b") && is_url("https://a.b/c?d=e"));
    }

    #[test]
    fn oci_references() {
        let purl = |reference: Option<&str>| {
            let origin = Origin::Oci { reference: reference.map(str::to_owned), digest: Digest::ZERO };
            let text = Container { name: "web".into(), origin }.purl().unwrap().unwrap();
            text.replace(&Digest::ZERO.to_string(), "0")
        };
        assert_eq!(purl(None), "pkg:oci/web@sha256:0?arch=amd64");
        assert_eq!(
            purl(Some("registry.example:5000/team/app:1.2@sha256:00")),
            "pkg:oci/app@sha256:0?arch=amd64&repository_url=registry.example:5000%2Fteam%2Fapp&tag=1.2"
        );
        assert_eq!(purl(Some("debian")), "pkg:oci/debian@sha256:0?arch=amd64&repository_url=debian");
    }
}
