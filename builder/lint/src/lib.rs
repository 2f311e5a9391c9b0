//! What should not be in an image, said before it is signed.
//!
//! [`lint`] looks at the composed tree, the kernel's configuration, the lists of modules and the sizes, and gives a
//! [`Report`] of [`Finding`]s. Each finding has the name of its [`Rule`]; `ashlar lint --explain RULE` prints the
//! rule's explanation. A recipe allows a finding with a reason, by rule and path (`[[lint.allow]]`, [`Allow`]).
//!
//! The root and each container are judged on their own: a container's link, library or account is looked for in the
//! container's own root, as it will be when it runs.
#![forbid(unsafe_code)]

mod allow;
mod checks;
mod error;
mod glob;
mod parts;
mod report;
mod rules;
mod secrets;
mod subject;

pub use allow::{Allow, check_allows};
pub use checks::capabilities::describe as describe_capabilities;
pub use checks::elf::{Elf, Kind as ElfKind, read_bytes as read_elf};
pub use checks::kernel::Config as KernelConfig;
pub use checks::os_release::parse as parse_os_release;
pub use error::LintError;
pub use glob::matches as glob_matches;
pub use report::{Allowed, Finding, Part, Report, Severity};
pub use rules::{Rule, rule, rules};
pub use secrets::scan_bytes;
pub use subject::{
    Certificate, Compression, Container, HostFacts, Module, Modules, PartitionBytes, Sizes, Subject,
};

use checks::Context;

/// Lints an image.
///
/// # Errors
/// [`LintError::UnknownRule`], [`LintError::Reason`] and [`LintError::Path`] for an allowance that cannot be meant as it
/// is written, [`LintError::NoContainer`] when a container's root is not in the tree, and [`LintError::Read`] when
/// a file's content cannot be read.
pub fn lint(subject: &Subject<'_>, allow: &[Allow]) -> Result<Report, LintError> {
    check_allows(allow)?;
    let parts = parts::split(subject)?;
    let contents = checks::contents::read(subject, &parts)?;
    let mut context = Context::new(subject, &parts, &contents);
    checks::nodes::check(&mut context);
    checks::links::check(&mut context);
    checks::accounts::check(&mut context)?;
    checks::programs::check(&mut context);
    checks::leftovers::check(&mut context)?;
    checks::contents::check(&mut context);
    checks::os_release::check(&mut context)?;
    checks::kernel::check(&mut context);
    checks::modules::check(&mut context);
    checks::sizes::check(&mut context);
    checks::certificates::check(&mut context)?;
    Ok(allow::apply(context.findings, allow, &parts, contents.files(), contents.bytes()))
}
