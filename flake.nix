{
  description = "Ashlar: measured, A/B-updated operating system images whose owner holds the keys";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" ];
      forAllSystems = f: nixpkgs.lib.genAttrs systems (system: f nixpkgs.legacyPackages.${system});
      version = (builtins.fromTOML (builtins.readFile ./Cargo.toml)).workspace.package.version;
    in
    {
      packages = forAllSystems (pkgs: rec {
        # PID 1 of the images: static, so built against musl.
        ashlar-init = pkgs.pkgsStatic.rustPlatform.buildRustPackage {
          pname = "ashlar-init";
          inherit version;
          src = self;
          cargoLock.lockFile = ./Cargo.lock;
          cargoBuildFlags = [ "--package" "ashlar-init" ];
          # The tests start QEMU, swtpm and loop devices: `cargo xtask test` runs them, not a build sandbox.
          doCheck = false;
        };
        default = pkgs.rustPlatform.buildRustPackage {
          pname = "ashlar";
          inherit version;
          src = self;
          cargoLock.lockFile = ./Cargo.lock;
          cargoBuildFlags = [ "--package" "ashlar-builder" ];
          doCheck = false;
          postInstall = ''
            install -m755 ${ashlar-init}/bin/ashlar-init $out/bin/ashlar-init
          '';
        };
      });

      devShells = forAllSystems (pkgs: {
        default = pkgs.mkShell {
          packages = with pkgs; [
            cargo
            clippy
            rustc
            rustfmt
            cryptsetup
            dosfstools
            erofs-utils
            etcd
            gptfdisk
            mtools
            nginx
            openssl
            protobuf
            qemu
            sbsigntool
            swtpm
            tpm2-tools
          ];
          ASHLAR_OVMF = "${pkgs.OVMFFull.fd}/FV";
        };
      });
    };
}
