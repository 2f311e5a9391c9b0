//! `cargo xtask demo`: from a recipe to a measured machine that runs a container, in the commands that a user would type.

use crate::build;
use crate::run::{run, target};

/// Builds the example and boots it.
pub fn demo() -> Result<(), String> {
    let programs = build::build()?;
    let ashlar = programs.join("ashlar").display().to_string();
    let folder = target().join("demo");
    std::fs::create_dir_all(&folder).map_err(|e| format!("cannot create `{}`: {e}", folder.display()))?;
    let path = |name: &str| folder.join(name).display().to_string();
    let (keys, out) = (path("keys"), path("out"));
    if !folder.join("keys").exists() {
        run(&ashlar, &["keys", "new", &keys, "--name", "Ashlar demo"])?;
    }
    run(
        &ashlar,
        &[
            "build",
            "examples/container-host.toml",
            "--keys",
            &keys,
            "-o",
            &out,
            "--lock",
            &path("image.lock"),
        ],
    )?;
    run(&ashlar, &["inspect", &out])?;
    // Port 0 on our side: any free one.
    run(&ashlar, &["qemu", &out, "--check", "--forward", "0:8080", "--get", "8080/"])
}
