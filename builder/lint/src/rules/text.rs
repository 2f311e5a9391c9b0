//! What each rule says of itself.

use super::Rule;
use crate::report::Severity::{Error, Note, Warning};

/// All rules, by name.
pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "account",
        severity: Error,
        summary: "an account without a password, a second uid 0, or a password hash that everybody can read",
        explanation: "
An empty password field in /etc/shadow or /etc/passwd lets anybody log in who finds a way to ask. A second account with
uid 0 is root under another name and is overlooked when root is locked. A password hash in an image is the same on every
machine and can be read by whoever has the image, so it can be attacked offline (that one is a warning).

Found by reading /etc/passwd and /etc/shadow of the root and of each container (passwd(5), shadow(5)).
Fix: lock the account (`!` or `*` in the field), or give credentials to the machine when it is provisioned.",
    },
    Rule {
        name: "build-host-leak",
        severity: Warning,
        summary: "the build host's name, a home directory or a folder of the build in a file, a name or a link",
        explanation: "
A path or host name of the machine that built the image tells others about it, and makes the image differ on the next
machine: the build is not reproducible. A link to such a path points to nothing on the machines that run the image.

Found by searching the content of every file, every name and every link target for the host name as a whole word, the
user's home and the folders of recipe, keys, cache and output. Names too short or too common to mean anything (fewer
than eight letters without a digit or hyphen, `localhost`, the image's own host name) are not looked for, nor are /root
and /tmp. Offsets are in bytes from the start of the file.
Fix: build the file with path remapping (-ffile-prefix-map, --remap-path-prefix), strip it, or write it without.",
    },
    Rule {
        name: "build-network",
        severity: Warning,
        summary: "resolv.conf or hosts holds addresses of the network that the image was built in",
        explanation: "
Name servers, search domains and host addresses belong to the network where a machine runs. Tools that build in a chroot
copy the build host's files in and forget to take them out. The machines then ask a name server that they cannot reach,
and everybody can read the names of the build network.

Found in /etc/resolv.conf and /etc/hosts, where they are files and hold an address that is not loopback or multicast.
Fix: leave the files out; init writes them when the network is up. Allow it where a fixed address is meant.",
    },
    Rule {
        name: "certificate-expiry",
        severity: Error,
        summary: "a certificate that has expired at build time, or will within a year",
        explanation: "
An image may run for years. When a certificate in it expires, connections fail on the whole fleet in the same second.
The owner's Secure Boot certificates are looked at too: firmware ignores their dates, but signing tools and people do not.

Found in the owner's certificates and in .crt, .pem and .cer files below /etc and among the recipe's own files, compared
with the build time, not with the clock. Bundles of public authorities (ca-certificates) are left out: they change with
their package. Expired is an error, within a year a warning.
Fix: renew the certificate.",
    },
    Rule {
        name: "dangling-link",
        severity: Warning,
        summary: "a symbolic link to something that is not in the image",
        explanation: "
A link to nothing is mostly a package that was excluded or a path that was removed while something still points to it.
It fails when it is used, which may be months later.

Found by following each link inside the root or the container that it lies in. Targets below /run, /proc, /sys, /dev,
/tmp and /var are taken to appear at run time; /etc/localtime may be missing (UTC, localtime(5)).
Fix: add what it points to, or remove the link with `remove` in the recipe.",
    },
    Rule {
        name: "device-node",
        severity: Error,
        summary: "a device node, pipe or socket in the image",
        explanation: "
A device node in a file system is access to hardware or kernel memory by a path, past the /dev that init and the
container runtime set up. In a container it is a way out. Pipes and sockets are left over from a program that ran
(a warning). A character device 0:0 is a whiteout, a trace of a layer that was not applied.

Found by the type of the node.
Fix: remove it; /dev is mounted at run time.",
    },
    Rule {
        name: "embedded-time",
        severity: Warning,
        summary: "a file of the recipe with a time stamp inside: gzip with a date, Python byte code with one",
        explanation: "
A date inside a file changes with each build of the file, so the image changes though nothing else did: it cannot be
reproduced and updates carry the block again. Python compares the date in byte code with the source's, whose date the
builder sets, and so ignores the byte code at each start.

Found in the gzip header (RFC 1952, MTIME) and the header of .pyc files (PEP 552), in files that no package brought.
Fix: gzip -n; python3 -m compileall --invalidation-mode unchecked-hash.",
    },
    Rule {
        name: "file-capabilities",
        severity: Error,
        summary: "a program that gives itself capabilities (security.capability)",
        explanation: "
File capabilities raise the rights of whoever runs the program, as setuid does, and are easier to overlook: `ls` does not
show them. Ashlar starts programs with the capabilities that the recipe names, so none of its own needs them.

Found in the extended attribute security.capability of each file (capabilities(7), revisions 1 to 3); the names are
decoded.
Fix: remove the program, or name the capability in the container's or service's recipe instead.",
    },
    Rule {
        name: "future-time",
        severity: Warning,
        summary: "a file that is newer than the build",
        explanation: "
Times in the image are the build time or older, so that the same input gives the same image. A later time comes from a
wrong clock or from a file that bypassed the builder, and confuses programs that compare times.

Found by comparing each file's time with the build time.
Fix: set `build-time` in the recipe, or give the file a time that has passed.",
    },
    Rule {
        name: "kernel-config",
        severity: Error,
        summary: "the kernel lacks an option that the image needs, or its module is not loaded",
        explanation: "
The image is started by EFI, read from erofs through dm-verity, measured into a TPM and locked down; containers need
namespaces, control groups and seccomp. A kernel without one of these stops at boot, or starts with less protection than
the owner thinks. An option built as a module (`=m`) counts only if the module is in the list that is loaded at that time.

Found in the kernel package's /boot/config-VERSION, with the lists of modules and the command line. Errors are what the
boot or its protection needs; warnings are what a container, the state volume or the watchdog needs.
Fix: choose another kernel package, or add the module to `initramfs-modules` or `modules`.",
    },
    Rule {
        name: "left-over",
        severity: Warning,
        summary: "caches, package lists and logs that nothing reads in a finished image",
        explanation: "
Downloaded packages, lists of packages, caches of debconf, backups of account files and logs of the build take space in
each update, tell about the build, and differ from build to build.

Found at their known paths: /var/cache, /var/lib/apt/lists, /var/lib/dpkg/*-old, /var/log, /etc/passwd- and the like.
One finding counts all files of one place.
Fix: `remove` the path in the recipe.",
    },
    Rule {
        name: "machine-identity",
        severity: Error,
        summary: "a machine-id, SSH host key or random seed that all machines would share",
        explanation: "
What makes a machine unique must be made on the machine. A shared machine-id makes two machines one in logs and DHCP. A
shared SSH host key lets the owner of one machine pose as all others. A shared random seed makes random numbers less so.

Found at /etc/machine-id, /var/lib/dbus/machine-id (with content other than `uninitialized`), /etc/ssh/ssh_host_*_key,
/var/lib/systemd/random-seed and /var/lib/systemd/credential.secret.
Fix: remove the file, or empty /etc/machine-id.",
    },
    Rule {
        name: "missing-interpreter",
        severity: Error,
        summary: "a program whose loader, or a script whose interpreter, is not in its root",
        explanation: "
The kernel starts such a program with `No such file or directory`, which names the program, not what is missing. It
happens when a program is copied into a container without its libc, or when an image has no shell but has scripts.

Found in PT_INTERP of executable ELF files (an error) and in the `#!` line of executable files (a warning, as many
packages bring scripts that nobody starts; examples in /usr/share/doc and maintainer scripts are left out). For
`#!/usr/bin/env NAME`, NAME is looked for in the usual places.
Fix: add the package with the interpreter, or remove the file.",
    },
    Rule {
        name: "missing-library",
        severity: Error,
        summary: "a program or library that needs a shared library which is not in its root",
        explanation: "
The dynamic loader refuses to start such a program. The usual causes are an excluded package and a library that was
removed to save space.

Found in DT_NEEDED of ELF files. A library counts as there if a file or link with that name, or a library with that
DT_SONAME, is anywhere in the same root: search paths are not judged. Programs are errors; libraries are warnings, as a
plugin that is never loaded hurts nobody.
Fix: add the package with the library, or remove the file.",
    },
    Rule {
        name: "module-without-dependency",
        severity: Error,
        summary: "a kernel module is loaded before, or without, one that it needs",
        explanation: "
A module is refused by the kernel (`Unknown symbol`) when a module whose symbols it uses is not there yet. In the
initramfs that means no disk or no verity, so no boot.

Found by comparing `depends=` of each module with the lists in their order, and with what is built into the kernel. The
root's list may use what the initramfs has loaded.
Fix: add the missing module before it. The builder's own lists are complete; this is about lists from elsewhere.",
    },
    Rule {
        name: "os-release",
        severity: Error,
        summary: "os-release lacks a field or is not what os-release(5) allows",
        explanation: "
os-release says what runs: systemd-stub measures it, boot menus show it, updates and inventories compare IMAGE_ID and
IMAGE_VERSION. Needed are NAME, ID, PRETTY_NAME, IMAGE_VERSION, and VERSION_ID or IMAGE_ID.

Found in the text that goes into the UKI, read as os-release(5) says, and in /etc/os-release of the root, which must be
the same text.
Fix: set `image.id`, `image.version` and `image.name` in the recipe.",
    },
    Rule {
        name: "private-key",
        severity: Error,
        summary: "a private key",
        explanation: "
A key in an image is a key in the hands of everybody who gets the image or an update. Read-only and signed does not mean
secret: the root is not encrypted.

Found by content: PEM (also inside JSON), OpenSSH, PuTTY, age and OpenPGP keys, and whole files that are DER in PKCS#8,
PKCS#1 or SEC 1 form, or an OpenPGP secret key. Certificates and public keys are not meant, nor are programs
that merely contain the word. A whole key inside of a program or library is a warning: cryptographic libraries bring the
keys of their self-tests.
Fix: remove the file and give the key to the machine when it is provisioned. If the image was ever published, replace
the key. Allow it for keys that are public anyway, such as those of a test suite.",
    },
    Rule {
        name: "setuid",
        severity: Error,
        summary: "a program that runs as its owner or group (setuid, setgid)",
        explanation: "
A setuid program gives every user root for a moment; most local root exploits start with one. Ashlar's images need none:
init starts each program with the user and the capabilities of the recipe, and containers run with no_new_privs.

Found by the mode of each file. On directories setgid only hands down the group, so they are not meant.
Fix: remove the program or its bit (`mode` in the recipe). Debian's packages bring su, mount, passwd and the like.",
    },
    Rule {
        name: "shell",
        severity: Note,
        summary: "the root has a shell",
        explanation: "
Nothing in the root needs a shell: init starts programs itself and nobody logs in. A shell is what an intruder wants
first. This is a note, not a warning: some images have one on purpose.

Found by the names of well-known shells in the root's /usr/bin and /usr/sbin. Containers are not looked at.
Fix: exclude the package in the recipe (`exclude-packages`).",
    },
    Rule {
        name: "token",
        severity: Error,
        summary: "an access token, or a file of credentials of a well-known service",
        explanation: "
A token in an image works for everybody who reads the image, often with the rights of the person who built it.

Found by content, without guessing by randomness: tokens with a known prefix and length (AWS, GitHub, GitLab, Slack,
Google, npm, PyPI, Docker, Stripe, Vault), their checksum verified where the format has one (GitHub, npm); JSON web
tokens whose header names an algorithm (a warning: some are examples); and files that hold credentials by their nature,
by name and content: .docker/config.json, .netrc, .npmrc, .git-credentials, .pypirc, .pgpass, .aws/credentials,
.kube/config, gcloud's and Azure's files. The report never shows the token.
Fix: remove it, and revoke it if the image was ever published.",
    },
    Rule {
        name: "too-large-for-field",
        severity: Error,
        summary: "the image does not fit into a partition, or nearly fills it",
        explanation: "
Partitions are made once, when a machine is installed, and never again. An image that is larger than the smallest slot
in the field cannot be installed there: those machines get no more updates. An image within a tenth of the limit is a
warning, so that there is time to do something about it.

Found by comparing what the slot needs with the partitions of the recipe and with the smallest ones in the field.
Fix: remove something, compress the root, or leave the old machines on their last release on purpose.",
    },
    Rule {
        name: "unowned",
        severity: Warning,
        summary: "a file whose owner or group is not in passwd or group",
        explanation: "
A number without a name is mostly the id of a user of the build host, or of a package whose account was not made. The
next account that gets the number gets the files.

Found by comparing owners with /etc/passwd and /etc/group of the same root. Where a container has no such file at all,
nothing is said. Of a directory with all below it, only the directory is named.
Fix: add the user to the recipe, or give the files to root.",
    },
    Rule {
        name: "unused-allow",
        severity: Warning,
        summary: "the recipe allows something that was not found",
        explanation: "
An allowance that matches nothing is a hole that waits: when the thing comes back, perhaps for another reason, nobody is
told. It is mostly left over from a file that is gone or a path that has changed its name.

Found by counting what each [[lint.allow]] has matched. A rule that could not run (no kernel configuration, sizes not
known yet) has found nothing.
Fix: take it out of the recipe.",
    },
    Rule {
        name: "world-writable",
        severity: Error,
        summary: "a file that everybody may write, or such a directory without the sticky bit",
        explanation: "
The root is read-only, but the mode goes along when a file is copied to a place that is not, and where an overlay is
mounted over it. Anybody can then change what others run. In a directory without the sticky bit, anybody can replace
the files of others.

Found by the mode of each file and directory; links have no mode of their own.
Fix: `mode` in the recipe, or 1777 for a directory that is meant to be shared, as /tmp is.",
    },
    Rule {
        name: "writable-system",
        severity: Warning,
        summary: "a program, library or configuration file that belongs to another user than root",
        explanation: "
Who owns a file can change its mode and then its content. Below /usr, /boot and /etc that makes a service's account
owner of what root runs. The read-only root stops it on the machine; a copy or an overlay does not.

Found by owner below /usr, /boot and /etc: another uid than 0, or writable by a group other than 0. Containers whose
image gives the files to the user that it runs as are named too, once at the topmost path.
Fix: give the files to root.",
    },
    Rule {
        name: "wrong-architecture",
        severity: Error,
        summary: "a program or library for another processor",
        explanation: "
A program for another machine type ends with `Exec format error`. It comes from a package of another architecture, a
container image of the wrong platform or a binary built on another machine.

Found in the header of executable ELF files and shared libraries: they must be for x86-64; 32-bit x86 is accepted where
the kernel can run it (CONFIG_IA32_EMULATION). Relocatable objects, BPF programs and firmware are left out.
Fix: take the file or image for amd64.",
    },
];
