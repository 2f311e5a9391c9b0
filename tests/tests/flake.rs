//! `flake.nix` parses and evaluates; with nixpkgs stubbed, as nothing can be fetched here. What it builds is not built.
#![allow(clippy::unwrap_used)] // a test fails by it

use std::path::Path;
use std::process::Command;

/// Just enough of nixpkgs for the flake to be evaluated: packages become their attribute sets.
const EVALUATE: &str = r#"
let
  package = name: { inherit name; outPath = "/nix/store/${name}"; };
  build = arguments: { drvName = arguments.pname; inherit (arguments) version cargoBuildFlags; outPath = "/nix/store/x"; };
  names = [ "cargo" "clippy" "rustc" "rustfmt" "cryptsetup" "dosfstools" "erofs-utils" "etcd" "gptfdisk" "mtools" "nginx"
            "openssl" "protobuf" "qemu" "sbsigntool" "swtpm" "tpm2-tools" ];
  pkgs = builtins.listToAttrs (map (name: { inherit name; value = package name; }) names) // {
    rustPlatform.buildRustPackage = build;
    pkgsStatic.rustPlatform.buildRustPackage = build;
    OVMFFull.fd = "/nix/store/ovmf";
    mkShell = arguments: map (p: p.name) arguments.packages;
  };
  nixpkgs = {
    lib.genAttrs = names: f: builtins.listToAttrs (map (name: { inherit name; value = f name; }) names);
    legacyPackages.x86_64-linux = pkgs;
  };
  outputs = (import FLAKE).outputs { self = FOLDER; inherit nixpkgs; };
in
{
  program = outputs.packages.x86_64-linux.default.drvName;
  init = outputs.packages.x86_64-linux.ashlar-init.cargoBuildFlags;
  version = outputs.packages.x86_64-linux.default.version;
  shell = outputs.devShells.x86_64-linux.default;
}
"#;

#[test]
fn the_flake_evaluates_with_a_stub_of_nixpkgs() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().display().to_string();
    let store = tempfile::tempdir().unwrap();
    let expression =
        EVALUATE.replace("FLAKE", &format!("{folder}/flake.nix")).replace("FOLDER", &format!("\"{folder}\""));
    let output = Command::new("nix-instantiate")
        .args(["--eval", "--strict", "--json", "--expr", &expression])
        .env("NIX_STORE_DIR", store.path().join("store"))
        .env("NIX_STATE_DIR", store.path().join("state"))
        .env("NIX_LOG_DIR", store.path().join("log"))
        .env("HOME", store.path())
        .output();
    let Ok(output) = output else {
        eprintln!("skipped: nix-instantiate is needed (package nix-bin)");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["program"], "ashlar");
    assert_eq!(value["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(value["init"][1], "ashlar-init");
    assert!(value["shell"].as_array().unwrap().iter().any(|name| name == "swtpm"));
}
