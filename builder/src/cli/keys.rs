//! `ashlar keys`

use super::{print, print_json};
use crate::error::BuildError;
use ashlar_image::digest::Digest;
use ashlar_keys::{KeyFolder, NewKeys, Signer};
use clap::{Args, Subcommand};
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// Make a folder with all keys of an owner: firmware (PK, KEK, db), PCR policy, channel, configuration
    New(New),
    /// Tell whose keys a folder holds
    Show(Show),
}

#[derive(Debug, Args)]
pub(super) struct New {
    /// The folder; none of its keys may exist
    directory: PathBuf,
    /// Name of the owner in the certificates
    #[arg(long, default_value = "Ashlar owner")]
    name: String,
    /// Years until the certificates expire; firmware does not look at it, other tools do
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100))]
    years: u32,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// The folder
    directory: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is public of a key folder.
#[derive(Serialize)]
struct Shown {
    owner_guid: String,
    pk_sha256: Digest,
    kek_sha256: Digest,
    db_sha256: Digest,
    pcr_policy_key_sha256: Digest,
}

impl Keys {
    pub(super) fn run(self) -> Result<ExitCode, BuildError> {
        match self {
            Self::New(new) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
                let not_before = i64::try_from(now).unwrap_or(0);
                let keys = NewKeys { owner_name: new.name, not_before, years: new.years };
                KeyFolder::create(&new.directory, &keys)?;
                print(&format!(
                    "made keys in `{d}`\nKeep `PK.key` and `KEK.key` off line: they are needed only to change the \
                     keys in the firmware.\nnext: ashlar build RECIPE --keys {d} -o out\n",
                    d = new.directory.display()
                ));
            }
            Self::Show(show) => {
                let keys = KeyFolder::open(&show.directory)?;
                let shown = Shown {
                    owner_guid: keys.owner().to_string(),
                    pk_sha256: Digest::of(keys.pk().certificate_der()),
                    kek_sha256: Digest::of(keys.kek().certificate_der()),
                    db_sha256: Digest::of(keys.db().certificate_der()),
                    pcr_policy_key_sha256: Digest::of(keys.pcr().public_key().pkcs1_der()?),
                };
                if show.json {
                    print_json(&shown)?;
                } else {
                    print(&format!(
                        "owner        {}\nPK           {}\nKEK          {}\ndb           {}\nPCR policy   {}\n",
                        shown.owner_guid,
                        shown.pk_sha256,
                        shown.kek_sha256,
                        shown.db_sha256,
                        shown.pcr_policy_key_sha256
                    ));
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
