#!/usr/bin/env bash
# Makes the seeds of the fuzz targets again: small valid inputs, most of them by tools that we did not write.
#
#     fuzz/seeds.sh [TARGET…]
#
# They are in version control, so this is only needed when an input's form changes. Keys and signatures are new each time.
# What the tool for is not installed keeps the seeds that it has, and that is said. Packages: binutils bzip2 cpio cryptsetup-bin dpkg
# e2fsprogs efitools erofs-utils gcc gdisk gnupg openssl openssh-client ovmf perl sbsigntool tar.
set -euo pipefail
shopt -s nullglob
export LC_ALL=C TZ=UTC SOURCE_DATE_EPOCH=1700000000
umask 022

fuzz=$(cd "$(dirname "$0")" && pwd)
top=$(dirname "$fuzz")
work=$(mktemp -d)
trap 'gpgconf --homedir "$work/gpg" --kill all 2>/dev/null || true; rm -rf "$work"' EXIT

# Little-endian numbers of 2 and 4 bytes.
le16() { printf '%b' "$(printf '\\x%02x\\x%02x' $(($1 & 255)) $(($1 >> 8 & 255)))"; }
le32() { le16 $(($1 & 65535)); le16 $(($1 >> 16 & 65535)); }
size() { stat -c %s "$1"; }
# The seed that comes from standard input.
seed() { cat > "$out/$1"; }
# The same behind a byte that chooses the format.
chosen() { { printf '%b' "\\x$1"; cat; } > "$out/$2"; }
# Two files, the first after its length.
pair() { { le32 "$(size "$1")"; cat "$1" "$2"; } > "$out/$3"; }
# Zeros at the end say nothing.
trim() { perl -0777 -pe 's/\0+\z//' "$1"; }
needs() {
    local tool
    for tool in "$@"; do
        command -v "$tool" > /dev/null || { echo "kept as it is: $target, because $tool is not installed"; exit 0; }
    done
}

# A tree with what packages have: links, a long name, a script.
tree() {
    local tree=$work/tree
    [ -d "$tree" ] || {
        mkdir -p "$tree/usr/share/$(printf 'a-long-name/%.0s' 1 2 3 4 5 6 7 8 9 10)" "$tree/DEBIAN"
        printf 'some text\n%.0s' {1..40} > "$tree/usr/tool"
        printf x > "$tree/usr/share/a-long-name/file"
        ln "$tree/usr/tool" "$tree/usr/zool"
        ln -s tool "$tree/usr/link"
        ln -s "$(printf 'target/%.0s' {1..20})" "$tree/usr/long"
        control > "$tree/DEBIAN/control"
        printf 'interest-noawait /usr/lib\n' > "$tree/DEBIAN/triggers"
        printf '#!/bin/sh\nset -e\nldconfig\n' > "$tree/DEBIAN/postinst"
        chmod 755 "$tree/DEBIAN/postinst"
    }
    echo "$tree"
}

control() {
    cat <<'END'
Package: seed
Source: seeds (1.0-2)
Version: 1:1.0~rc1-2
Architecture: amd64
Maintainer: A B <a@example.org>
Depends: lib (>= 2) | other, c:any, d (<< 1:3~)
Provides: virtual (= 3)
Homepage: https://example.org/
Description: a seed
 of a few words
END
}

# An EFI program of a few hundred bytes, with the sections that are given as NAME=FILE.
pe() {
    local result=$1 section
    shift
    [ -f "$work/program.so" ] || {
        printf '.globl _start\n_start: ret\n.data\n.long 7\n.section .sbat,"a"\n.ascii "sbat,1\\n"\n' \
            | gcc -x assembler -c -o "$work/program.o" -
        ld -shared -e _start -o "$work/program.so" "$work/program.o"
    }
    local add=()
    local at=65536
    for section in "$@"; do
        add+=(--add-section "${section%%=*}=${section#*=}" --change-section-vma "${section%%=*}=$at"
            --set-section-flags "${section%%=*}=data,readonly,contents,alloc,load")
        at=$((at + 65536))
    done
    objcopy -j .text -j .data -j .sbat --target=efi-app-x86_64 --subsystem=10 "$work/program.so" "$work/plain.efi"
    objcopy "${add[@]}" "$work/plain.efi" "$result"
}

certificate() {
    [ -f "$work/key.pem" ] || openssl req -x509 -newkey rsa:2048 -nodes -days 36500 -subj "/CN=Seed" \
        -keyout "$work/key.pem" -out "$work/certificate.pem" 2> /dev/null
}

make_authenticode_signature() {
    needs gcc objcopy openssl sbsign
    certificate
    pe "$work/program.efi"
    sbsign --key "$work/key.pem" --cert "$work/certificate.pem" --output "$out/signed" "$work/program.efi" > /dev/null 2>&1
    sbsign --key "$work/key.pem" --cert "$work/certificate.pem" --output "$out/twice" "$out/signed" > /dev/null 2>&1
}

make_certificate() {
    needs openssl
    openssl ecparam -name prime256v1 -genkey -noout -out "$work/ec.pem"
    openssl req -x509 -key "$work/ec.pem" -days 36500 -subj "/C=DE/O=Seed \\& Söhne/CN=seed" -utf8 -out "$out/certificate.pem"
    openssl x509 -in "$out/certificate.pem" -outform DER -out "$out/certificate.der"
    openssl x509 -in "$out/certificate.pem" -trustout -addtrust serverAuth -out "$out/trusted.pem"
    openssl pkcs8 -topk8 -nocrypt -in "$work/ec.pem" -out "$out/key.pem"
    openssl pkcs8 -topk8 -passout pass:seed -in "$work/ec.pem" -out "$out/encrypted.pem"
    openssl pkcs8 -topk8 -scrypt -passout pass:seed -in "$work/ec.pem" -out "$out/scrypt.pem" || true
    openssl genpkey -algorithm ed25519 -out "$out/ed25519.pem"
    { echo 'text before'; cat "$out/certificate.pem" "$out/certificate.pem"; } | seed two.pem
}

make_cmdline() {
    local hash
    hash=$(printf '0123456789abcdef%.0s' 1 2 3 4)
    echo "console=ttyS0 roothash=$hash ashlar.verity=3618:$hash quiet" | seed both
    echo "a=\"b c\" roothash=\"$hash\" ashlar.verity=1:$hash" | seed quoted
}

make_control_api() {
    needs openssl
    echo '/v1/logs?unit=web&lines=10&since=1795577114.5&boot=current&priority=4&follow=true' | tr -d '\n' | seed logs
    echo 'unit=kernel&boot=0123456789abcdef0123456789abcdef&lines=3' | tr -d '\n' | seed query
    echo '/v1/services/w%65b/restart' | tr -d '\n' | seed service
    echo '[2001:db8::1]:7443' | tr -d '\n' | seed target
    echo '{"time":1795577114000000,"uptime":12,"boot":"0123456789abcdef0123456789abcdef","unit":"web","priority":6,"message":"a \"b\""}' |
        tr -d '\n' | seed entry
    openssl ecparam -name prime256v1 -genkey -noout -out "$work/client.key"
    openssl req -x509 -key "$work/client.key" -days 36500 -subj '/OU=operator/CN=alice' \
        -addext 'subjectAltName=URI:urn:ashlar:role:operator' -outform DER -out "$out/client.der"
}

make_control_request() {
    echo '{"op":"status"}' | seed status
    echo '{"op":"service","name":"web","action":"restart"}' | seed service
    echo '{"op":"configure","envelope":"{\"payload\":\"e30=\",\"signatures\":[]}","dry_run":true}' | seed configure
    echo '{"op":"reseal","recovery_key":"abcd-efgh"}' | seed reseal
}

make_mountinfo() {
    seed machine <<'END'
21 1 254:0 / / ro,nosuid,nodev,relatime - erofs /dev/dm-0 ro,user_xattr,acl
22 21 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:3 master:1 - proc proc rw,hidepid=invisible
23 21 0:22 / /with\040space rw - tmpfs tmpfs rw,size=1k
END
}

make_proc_status() {
    seed process < /proc/self/status
}

make_pstore() {
    printf '%s\0%s' $'dmesg-efi-1-Oops#1 Part1\n<1>[    9.1] BUG: kernel NULL pointer dereference\n' \
        $'dmesg-efi-2-Panic#2 Part1\n<0>[    9.2] Kernel panic - not syncing: Fatal exception\n' | seed death
}

make_configure_text() {
    chosen 00 sysusers <<'END'
# comment
u root 0 "Super User" /root /bin/bash
u! _apt 42:65534 "Apt, the user" /nonexistent -
u named 33:www-data - /run/%% /usr/sbin/nologin
g kvm /dev/kvm
m user group
r - 500-900
END
    chosen 01 passwd <<'END'
root:x:0:0:root:/root:/bin/sh
nobody:*:65534:65534:nobody,,,:/nonexistent:/usr/sbin/nologin
END
    chosen 02 group <<'END'
root:x:0:
adm:!:4:syslog,user
END
    chosen 03 postinst <<'END'
#!/bin/sh
# Automatically added by dh_installsystemd/13
set -e
if [ "$1" = "configure" ] && dpkg --compare-versions "$2" lt 1.0; then
	update-alternatives --install /usr/bin/pager pager '/bin/more' 50 \
		--slave /usr/share/man/pager.1.gz pager.1.gz /usr/share/more.1.gz || true
fi
case "$1" in
  configure|reconfigure) f() { adduser --system "--home=$HOME" x; }; f ;;
  abort-*) cat <<-EOF > /dev/null
	text $(id -u) `ls`
	EOF
  ;;
esac
for i in *; do ldconfig & done 2>&1; [ -n "${x:-a}" ] && { ucf --three-way a /etc/a; }
# End automatically added section
exit 0
END
}

make_cpio() {
    needs cpio
    (cd "$(tree)" && find . | sort | cpio --quiet -o -H newc --reproducible) | trim /dev/stdin | seed newc
    # The trailer again: its end was cut off with the padding.
    (cd "$(tree)" && find usr -type f | sort | cpio --quiet -o -H newc --reproducible -R 0:0) | seed files
}

make_deb() {
    needs dpkg-deb ar bzip2
    local packing tree
    tree=$(tree)
    for packing in none gzip xz zstd; do
        dpkg-deb --root-owner-group "-Z$packing" --build "$tree" "$out/$packing" > /dev/null \
            || echo "left out: this dpkg-deb does not pack with $packing"
    done
    # Forms that dpkg-deb reads and does not make.
    (cd "$work" && printf odd > _extra && cp "$out/none" with-extra && ar qS with-extra _extra && cp with-extra "$out/")
    dpkg-deb --fsys-tarfile "$out/none" > "$work/data.tar"
    (cd "$work" && bzip2 -f data.tar && cp "$out/none" bzip2 && ar d bzip2 data.tar && ar qS bzip2 data.tar.bz2 && cp bzip2 "$out/")
}

release_file() {
    local hash
    hash=$(printf '0123456789abcdef%.0s' 1 2 3 4)
    cat <<END
Origin: Seed
Suite: stable-backports
Codename: trixie-backports
NotAutomatic: yes
ButAutomaticUpgrades: yes
Date: Sat, 21 Nov 2026 09:15:44 UTC
Valid-Until: Sat, 28 Nov 2026 09:15:44 UTC
Acquire-By-Hash: yes
No-Support-for-Architecture-all: Packages
Architectures: all amd64
Components: main contrib
SHA256:
 $hash 1234 main/binary-amd64/Packages
 $hash 56 main/binary-amd64/Packages.xz
END
}

make_debian_index() {
    release_file | seed release
    control | seed control
    {
        control
        printf 'Filename: pool/main/s/seed_1_all.deb\nSize: 1234\nSHA256: %064d\n\n' 0
        printf 'Package: x\nVersion: 2\nArchitecture: all\nPre-Depends: a [!amd64 linux-any] <!nocheck cross> <x>, b (= 1)\n'
        printf 'Conflicts: y (>> 3)\nBreaks: z\nMulti-Arch: foreign\nTag: a::b,\n c::d\n'
    } | seed packages
}

make_ext4_super() {
    needs mke2fs
    rm -f "$work/ext4"
    truncate -s 64M "$work/ext4"
    mke2fs -q -F -t ext4 -b 4096 -O ^resize_inode -L seed "$work/ext4"
    dd "if=$work/ext4" bs=1024 skip=1 count=1 status=none | seed mke2fs
}

make_in_release() {
    needs gpg
    local kind digest user
    release_file > "$work/Release"
    mkdir -pm 700 "$work/gpg"
    local gpg=(gpg --homedir "$work/gpg" --batch --no-tty --quiet --passphrase '' --pinentry-mode loopback
        --faked-system-time '1780000000!')
    for kind in ed25519:SHA256 rsa2048:SHA512; do
        digest=${kind#*:} kind=${kind%:*} user="$kind <$kind@example.org>"
        "${gpg[@]}" --quick-generate-key "$user" "$kind" sign never 2> /dev/null
        "${gpg[@]}" --digest-algo "$digest" -u "$user" -o - --clearsign "$work/Release" > "$work/signed"
        "${gpg[@]}" --export "$user" > "$work/key"
        "${gpg[@]}" --armor --export "$user" > "$work/armoured"
        pair "$work/signed" "$work/key" "$kind"
        pair "$work/signed" "$work/armoured" "$kind-armoured"
    done
    "${gpg[@]}" --digest-algo SHA256 -u "ed25519 <ed25519@example.org>" -u "rsa2048 <rsa2048@example.org>" -o - \
        --clearsign "$work/Release" > "$work/signed"
    "${gpg[@]}" --export > "$work/key"
    pair "$work/signed" "$work/key" two-signatures
}

make_elf() {
    needs gcc as ld
    local wide
    for wide in 64 32; do
        printf '.globl f\nf: ret\n.globl g\n.data\n.long g\n.section .modinfo,"a"\n.asciz "name=seed"\n.asciz "depends=a,b"\n.asciz "alias=pci:v*d*"\n.section __ksymtab_strings,"a"\n__kstrtab_f: .asciz "f"\n.section .gnu.linkonce.this_module,"aw"\n.long 0\n' \
            | as "--$wide" -o "$work/module$wide.o" -
        cp "$work/module$wide.o" "$out/module$wide"
    done
    printf '.globl f\nf: ret\n' | as --64 -o "$work/f.o" -
    ld -shared -soname libseed.so.1 -rpath /usr/lib/private --hash-style=both -o "$work/lib.so" "$work/f.o"
    strip "$work/lib.so" -o "$out/library"
    printf '.globl _start\n_start: call f\n' | as --64 -o "$work/s.o" -
    ld -pie --dynamic-linker /lib64/ld-linux-x86-64.so.2 -z relro -z now -o "$work/program" "$work/s.o" "$work/lib.so"
    strip "$work/program" -o "$out/program"
    ld -static -o "$work/static" "$work/s.o" "$work/f.o"
    strip "$work/static" -o "$out/static"
}

make_luks2_header() {
    needs cryptsetup
    local volume=$work/luks
    rm -f "$volume"
    truncate -s 80M "$volume"
    printf seed | cryptsetup luksFormat -q --type luks2 -s 512 --pbkdf-memory 32768 --pbkdf-force-iterations 4 --pbkdf-parallel 1 \
        --luks2-metadata-size 16k --offset 32768 --key-file - "$volume"
    printf '{"type":"ashlar-state","keyslots":[],"filesystem":"ready"}' | cryptsetup token import "$volume"
    head -c 32768 "$volume" | seed headers
    dd "if=$volume" bs=4096 skip=1 count=3 status=none | tr -d '\0' | seed metadata
}

make_module() { make_elf; rm -f "$out"/library "$out"/program "$out"/static; }

make_erofs() {
    needs mkfs.erofs
    local tree=$work/erofs name options
    mkdir -p "$tree/d"
    printf 'line %s\n' {1..4000} > "$tree/text"
    head -c 9000 /dev/zero > "$tree/zeros"
    printf small > "$tree/small"
    ln "$tree/small" "$tree/d/other"
    ln -s small "$tree/link"
    mkfifo "$tree/fifo"
    touch "$tree"/d/name-{1..40}
    command -v setfattr > /dev/null && setfattr -n user.note -v "$(printf 'v%.0s' {1..60})" "$tree/text" "$tree/small"
    while read -r name options; do
        # shellcheck disable=SC2086
        mkfs.erofs --quiet -T0 -U 00000000-0000-0000-0000-000000000001 --all-root $options "$work/$name" "$tree" \
            > /dev/null 2>&1 && trim "$work/$name" > "$out/$name" || echo "left out: this mkfs.erofs cannot do $options"
    done <<'END'
checksum
plain -Enosbcrc
small-blocks -b512 -Enosbcrc
extended -Eforce-inode-extended,nosbcrc
chunks --chunksize=4096 -Enosbcrc
lz4 -zlz4 -Enosbcrc
lz4hc -zlz4hc,9 -C16384 -Enosbcrc
legacy -zlz4 -Elegacy-compress,nosbcrc
fragments -zlz4 -Eall-fragments,nosbcrc
tail-packing -zlz4 -Eztailpacking,nosbcrc
dedupe -zlz4 -Ededupe,nosbcrc
zstd -zzstd -Enosbcrc
deflate -zdeflate -Enosbcrc
END
}

make_erofs_written() {
    printf '\x00\x00\x04\x00\xe2' | seed plain
    printf '\x01\x80\x04\x00\x01\x08\x10\x00\xff' | seed lz4
    printf '\x02\x40\x05\x00\x07' | seed lz4hc
    printf '\x03\x00\x10\x00\x28\x00\x20\x00\x00' | seed zstd
}

make_esp() {
    # The least that is read as FAT32: a boot sector, one sector of its table, two directories and a file of one cluster
    # each. The tools make no FAT32 of less than 32 MiB.
    perl -e 'sub sector { substr($_[0] . "\0" x 512, 0, 512) }
        my $boot = "\0" x 512;
        substr($boot, 11, 6) = pack("vCvC", 512, 1, 1, 1);
        substr($boot, 36, 4) = pack("V", 1);
        substr($boot, 44, 4) = pack("V", 2);
        sub named { my ($name, $flags, $cluster, $size) = @_;
            pack("A11 C x8 v x4 v V", $name, $flags, $cluster >> 16, $cluster & 0xffff, $size) }
        print $boot, sector(pack("V6", 0x0ffffff8, 0x0fffffff, (0x0fffffff) x 4)),
            sector(named("SEED", 8, 0, 0) . named("EFI", 16, 3, 0)), sector(named("BOOT", 16, 4, 0)),
            sector(named("BOOTX64 EFI", 32, 5, 10)), sector("MZ, or not");' | seed fat32
}

make_event_log() {
    local log
    for log in "$top"/measured-boot/testdata/*/log.bin; do
        cp "$log" "$out/$(basename "$(dirname "$log")")"
    done
}

# A disk with three partitions.
make_partition_table() {
    needs sgdisk
    rm -f "$work/disk"
    truncate -s 40K "$work/disk"
    sgdisk -a 1 -n 1:34:36 -t 1:ef00 -c 1:esp -n 2:37:40 -t 2:8304 -c 2:root-a -n 3:41:44 -c 3:größer \
        -u 1:R -U R "$work/disk" > /dev/null 2>&1
    cp "$work/disk" "$out/three"
    truncate -s 40K "$work/empty"
    sgdisk -o "$work/empty" > /dev/null 2>&1
    cp "$work/empty" "$out/empty"
}
make_init_disk() { make_partition_table; }

make_kernel_log() {
    printf '7,160,424069,-;pci_root PNP0A03:00: host bridge window [io 0x0000-0x0cf7] (ignored)\n SUBSYSTEM=acpi\n DEVICE=+acpi:PNP0A03:00\n' | seed record
    printf '30,5,1,c,caller=T1;ashlar: started service \\x41\\xc3\\xa4\n' | seed own
    printf '<3>an error\r\n<7>of little importance\nno end' | seed lines
    printf 0000000000000042.jsonl | seed name
}

make_notify_message() {
    printf 'READY=1\nSTATUS=all well\nMAINPID=7' | seed ready
    printf WATCHDOG=1 | seed alive
    printf 'WATCHDOG=trigger\n' | seed hangs
}

make_init_network() {
    printf 'add@/devices/pci0000:00/virtio0/block/vda\0ACTION=add\0DEVPATH=/devices/pci0000:00/virtio0/block/vda\0SUBSYSTEM=block\0MAJOR=253\0MINOR=0\0DEVNAME=vda\0SEQNUM=900\0' \
        | seed uevent
    # RTM_NEWLINK of `eth0`: up, with an address of the hardware.
    { le32 64; le16 16; le16 0; le32 1; le32 0; printf '\0\0'; le16 1; le32 2; le32 0x11043; le32 0
      le16 9; le16 3; printf 'eth0\0\0\0\0'; le16 10; le16 1; printf '\x52\x54\0\x12\x34\x56\0\0'; le16 5; le16 16; printf '\x06\0\0\0'; } | seed link
    # NLMSG_ERROR and NLMSG_DONE.
    { le32 36; le16 2; le16 0; le32 1; le32 0; le32 $((-17 & 0xffffffff)); le32 16; le32 0; le32 0; le32 0
      le32 20; le16 3; le16 2; le32 1; le32 0; le32 0; } | seed done
    # DHCPACK with the options that init knows, alone and in its frame (IP and UDP).
    {
        printf '\x02\x01\x06\0\x12\x34\x56\x78\0\0\0\0\0\0\0\0\x0a\0\x02\x0f\x0a\0\x02\x02\0\0\0\0\x52\x54\0\x12\x34\x56'
        head -c 202 /dev/zero
        printf '\x63\x82\x53\x63\x35\x01\x05\x36\x04\x0a\0\x02\x02\x33\x04\0\x01\x51\x80\x01\x04\xff\xff\xff\0\x03\x04\x0a\0\x02\x02\x06\x08\x0a\0\x02\x03\x01\x01\x01\x01'
        printf '\x0c\x04name\x0f\x07example\x1a\x02\x05\xdc\x79\x09\x18\xc0\xa8\x01\x0a\0\x02\x02\0\x34\x01\x03\xff'
    } > "$work/dhcp"
    cp "$work/dhcp" "$out/dhcp"
    perl -e 'local $/; open F, "<", $ARGV[0]; my $m = <F>; my $udp = pack("nnnn", 67, 68, 8 + length $m, 0);
        my $ip = pack("CCnnnCCnNN", 0x45, 0, 28 + length $m, 1, 0, 64, 17, 0, 0x0a000202, 0xffffffff);
        my $s = 0; $s += $_ for unpack "n*", $ip; $s = ($s & 0xffff) + ($s >> 16) while $s >> 16;
        substr($ip, 10, 2) = pack("n", ~$s & 0xffff); print $ip, $udp, $m' "$work/dhcp" | seed frame
}

make_init_time() {
    # An NTP answer of stratum 2, and a DNS answer: an alias and its address.
    { printf '\x24\x02\x06\xec\0\0\x10\0\0\0\x08\0\x0a\0\0\x01\xed\x00\0\0\0\0\0\0\x01\x02\x03\x04\x05\x06\x07\x08'
      printf '\xed\x00\0\x05\0\0\0\0\xed\x00\0\x05\0\0\x01\0'; } | seed ntp
    { printf '\0\x07\x81\x80\0\x01\0\x02\0\0\0\0\x04time\x07example\0\0\x01\0\x01'
      printf '\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x04\x01b\xc0\x11\x01b\xc0\x11\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01'; } | seed dns
}

make_key_text() {
    local hash
    hash=$(printf '0123456789abcdef%.0s' 1 2 3 4)
    printf 'pkcs11:token=The%%20token;serial=0123;object=db;type=private;id=%%01%%ff;slot-id=3;library-version=2.40?pin-source=file:/run/pin&module-path=/usr/lib/x.so' \
        | chosen 00 uri
    chosen 01 keys.toml <<'END'
PK = "offline"
KEK = { file = "kek.pem", passphrase-env = "KEK_PASSPHRASE" }
db = { pkcs11 = "pkcs11:token=keys;object=db", module = "/usr/lib/softhsm/libsofthsm2.so", pin-file = "/run/pin" }
pcr = { tpm = "0x81000001", tcti = "swtpm:port=2321", auth-env = "AUTH" }
[channel]
tpm = "channel.tss2"
END
    chosen 02 request <<END
{"format":1,"about":{"image_id":"host","image_version":"1","root_hash":"$hash","cmdline":"quiet"},"items":[
{"role":"pcr","key":"$hash","purpose":{"pcr-policy":{"pcrs":{"11":"$hash"}}}},
{"role":"db","key":"$hash","purpose":{"efi-program":{"authenticode":"$hash","signing-time":null}}},
{"role":"PK","key":"$hash","purpose":{"variable":{"name":"PK","time":1700000000,"payload":"AAAA"}}},
{"role":"channel","key":"$hash","purpose":{"document":{"content":"e30="}}}]}
END
    chosen 03 answers <<END
{"format":1,"signatures":[{"role":"pcr","key":"$hash","message":"$hash","signature":"AAECAw=="},
{"role":"db","key":"$hash","message":"$hash","signature":"AAECAw=="}]}
END
}

make_lint_text() {
    printf '\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0' | chosen 00 capability
    printf '\x01\0\0\x03\0\x04\x20\0\0\0\x20\0\0\0\0\0\0\0\0\0\xe8\x03\0\0' | chosen 00 capability-of-a-namespace
    printf 'NAME="Debian GNU/Linux"\nID=debian\n# comment\nPRETTY_NAME='"'a b'"'\nX="a\\"b\\$c"\n' | chosen 01 os-release
    printf '#\n# Linux 6.12\nCONFIG_EROFS_FS=m\nCONFIG_LSM="lockdown,yama"\n# CONFIG_X is not set\nCONFIG_N=0x10\n' | chosen 02 config
    printf '/usr/**/lib*.so.?\n/usr/lib/x86/libc.so.6' | chosen 03 pattern
}

make_lock() {
    local hash
    hash=$(printf '0123456789abcdef%.0s' 1 2 3 4)
    seed lock <<END
format = 2
index-date = 1795252544

[[index]]
suite = "trixie"
components = ["main"]
snapshot = "20261101T000000Z"
date = 1795252544
sha256 = "$hash"

[[part]]
name = "container hello"
requested = ["busybox-static"]
excluded = []

[[part.package]]
name = "busybox-static"
version = "1:1.37.0-6"
architecture = "amd64"
sha256 = "$hash"
size = 1476
path = "pool/main/b/busybox/busybox-static_1.37.0-6_amd64.deb"
origin = "trixie"
END
}

make_oci_document() {
    local hash
    hash=sha256:$(printf '0123456789abcdef%.0s' 1 2 3 4)
    chosen 00 index <<END
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"$hash","size":500,"platform":{"architecture":"arm64","os":"linux","variant":"v8"},"annotations":{"org.opencontainers.image.ref.name":"latest"}}]}
END
    chosen 01 manifest <<END
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"$hash","size":10},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"$hash","size":99}],"annotations":{"a":"b"}}
END
    chosen 02 config <<END
{"architecture":"amd64","os":"linux","config":{"User":"1000:1000","ExposedPorts":{"80/tcp":{}},"Env":["PATH=/bin","A=b=c"],"Entrypoint":["/bin/a"],"Cmd":["b"],"Volumes":{"/data":{}},"WorkingDir":"/srv","Labels":{"x":"y"},"StopSignal":"SIGTERM"},"rootfs":{"type":"layers","diff_ids":["$hash"]},"history":[{"created_by":"x","empty_layer":true}]}
END
    echo '{"token":"abc.def","access_token":"x","expires_in":300,"issued_at":"2026-11-21T09:15:44Z"}' | chosen 03 token
    printf 'Bearer realm="https://auth.example.org/token",service="registry",scope="repository:a/b:pull", Basic realm="a \\"b\\""' | chosen 04 challenge
    printf 'registry.example.org:5000/a/b_c:v1.0@%s' "$hash" | chosen 05 reference
    printf 'debian' | chosen 05 short
}

make_oci_layer() {
    needs tar
    local root=$work/layer below=$work/below.tar above=$work/above.tar
    mkdir -p "$root/below/d/e" "$root/above/d" "$root/above/opaque"
    printf one > "$root/below/file"
    ln "$root/below/file" "$root/below/same"
    ln -s d "$root/below/link"
    printf two > "$root/below/d/two"
    mkdir "$root/below/opaque"
    printf three > "$root/below/opaque/three"
    printf four > "$root/above/file"
    : > "$root/above/d/.wh.two"
    : > "$root/above/opaque/.wh..wh..opq"
    printf five > "$root/above/opaque/five"
    local pack=(tar --format=ustar --owner=0 --group=0 --mtime=@1700000000 --sort=name -b 1 -c)
    "${pack[@]}" -C "$root/below" . > "$below"
    "${pack[@]}" -C "$root/above" . > "$above"
    { printf '\x01'; le16 $(($(size "$below") / 512)); cat "$below" "$above"; } | seed layers
    { printf '\x00\0\0'; cat "$below"; } | seed archive
    # A directory of the lower layer becomes a link in the upper one; names below it go through the link.
    { printf '\x01'; le16 $(($(size "$below") / 512)); cat "$below"
      "${pack[@]}" --transform 's,^file,link/file,' -C "$root/above" file; } | seed through-a-link
    for how in absolute:-P: dots:-P:s,^,../, link:-P:s,^,link/../../,; do
        IFS=: read -r name flag change <<< "$how"
        { printf '\x01\0\0'; "${pack[@]}" "$flag" ${change:+--transform "$change"} -C "$root/above" \
            "$([ "$name" = absolute ] && echo "$root/above/file" || echo file)"; } | seed "$name"
    done
    if command -v setfattr > /dev/null && setfattr -n user.note -v x "$root/below/file" 2> /dev/null; then
        { printf '\x08\0\0'; tar --format=pax --xattrs --owner=big:3000000 --group=0 --mtime=@1700000000.5 --sort=name -b 1 -C "$root/below" -c .; } | seed attributes
    fi
    # A device; the header is put right by the target.
    { printf '\x05\0\0'; "${pack[@]}" -C "$root/below" file | perl -0777 -pe 'substr($_, 156, 1) = "3"; substr($_, 124, 11) = "0" x 11; substr($_, 329, 16) = "0000001\0" . "0000003\0"; $_ = substr($_, 0, 512) . "\0" x 1024'; } | seed device
}

make_order() {
    printf 'libfoo.so.10\nlibfoo.so.9\nlibfoo.so' | seed libraries
    printf '1:1.0~rc1-2\n1.0-2+b1\n1:1.0-2' | seed versions
    printf 'a1b\na01b\na1' | seed zeros
    # Differences of these do not fit into 32 bits: a finding of this target.
    printf 'lib.so.2000000000\nlib.so.0\nlib.so.2294967296' | seed large-numbers
}

make_pcrsig() {
    local digest entry
    digest=$(printf 'ab%.0s' {1..32})
    entry='"pcrs":[7,11,12,13,15],"pkfp":"'$digest'","pol":"'$digest'","sig":"AAAA"'
    printf '{"sha256":[{%s},{%s,"ref":"%s"}],"sha1":[]}\0' "$entry" "$entry" "$digest" | seed both
    printf '{}' | seed empty
}

make_pe() {
    needs gcc objcopy openssl sbsign
    make_authenticode_signature
    rm "$out/twice"
    uki "$out/uki" 'console=ttyS0'
    cp "$work/plain.efi" "$out/plain"
}

uki() {
    printf '%s' "$2" > "$work/cmdline"
    printf 'ID=seed\nIMAGE_VERSION=1\n' > "$work/osrel"
    (cd "$(tree)" && printf 'usr/tool\n' | cpio --quiet -o -H newc --reproducible -R 0:0) > "$work/initrd"
    printf '6.12\0' > "$work/uname"
    printf '{"sha256":[{"pcrs":[11],"pkfp":"00","pol":"00","sig":"AA=="}]}' > "$work/pcrsig"
    cp "$work/plain.efi" "$work/linux" 2> /dev/null || pe "$work/linux"
    pe "$1" ".cmdline=$work/cmdline" ".osrel=$work/osrel" ".uname=$work/uname" ".pcrsig=$work/pcrsig" \
        ".initrd=$work/initrd" ".linux=$work/linux"
}

make_qemu() {
    echo '{"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 10}}, "capabilities": ["oob"]}}' | seed greeting
    echo '{"return": {}, "id": 1}' | seed return
    echo '{"error": {"class": "GenericError", "desc": "no"}}' | seed error
    echo '{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}' | seed event
}

make_recipe() {
    local recipe
    for recipe in "$top"/examples/*.toml; do
        cp "$recipe" "$out/$(basename "$recipe")"
    done
    seed small <<'END'
[image]
id = "x"
version = "1"
time = 2026-11-21T09:15:44Z
[debian]
suite = "trixie"
[kernel]
package = "linux-image-amd64"
cmdline = "quiet"
[profile.test]
image.version = "2"
END
}

make_release_json() {
    local hash artifact
    hash=$(printf '0123456789abcdef%.0s' 1 2 3 4)
    artifact() { echo "{\"file\":\"$1\",\"size\":4096,\"sha256\":\"$hash\"}"; }
    seed release <<END
{"format":1,"image_id":"x","image_version":"1","security_version":1,"build_time":1700000000,"kernel":"6.12",
"partition_sizes":{"esp":536870912,"root":4294967296,"verity":67108864,"state":1073741824},
"slot":{"esp":$(artifact esp.img),"root":$(artifact root.erofs),"verity":$(artifact root.verity)},
"disk":{"file":"disk.raw","size":10873733120},"root_hash":"$hash",
"uki":{"file":"uki.efi","size":4096,"sha256":"$hash","authenticode":"$hash","kernel_authenticode":"$hash","stub_version":"257","cmdline":"quiet","sections":{".linux":"$hash"}},
"pcrs":{"4":[{"name":"first","events":[{"what":"separator","digest":"$hash"}],"value":"$hash"}]},
"init":"$hash","packages":[{"part":"root","name":"a","version":"1:2-3","architecture":"amd64","sha256":"$hash"}]}
END
}

make_channel_document() {
    local hash
    hash=$(printf '0123456789abcdef%.0s' 1 2 3 4)
    seed stable <<END
{"format":1,"name":"stable","image_id":"host","architecture":"x86-64","minimum_security_version":1,"max_version":"1.2",
"collector":"https://example.org/report","x-owner":{"a":[1]},"releases":[
{"version":"1.0","release":"$hash","security_version":1,"floor":true,"dead_end":"install anew"},
{"version":"1.1~rc1","release":"$hash","security_version":1,"barrier":"new disk format","withdrawn":"slow"},
{"version":"1.2","release":"$hash","security_version":2,"notes":"new","rollout":[{"start":1800000000,"duration":86400,"share":100000},{"start":1800086400,"share":900000}]}]}
END
}

# Taken from what the crates' tests make, or none: kept as they are.
make_blocks_frame() { :; }
make_blocks_index() { :; }
make_firmware_start() { :; }
make_load_option() { :; }
make_tuf_metadata() { :; }

make_update_request() {
    echo '{"op":"stage","version":"1.1","now":true}' | seed stage
    echo '{"op":"reboot","reason":"a disk"}' | seed reboot
}

make_lock_semaphore() {
    seed full <<END
{"version":1,"max":2,"holders":[{"id":"a","token":"01","since":1800000000,"reason":"update","from":"1.0","to":"1.1","deadline":1800000600,"failure":"network"},
{"id":"b","token":"02","since":-1}],"stale":{"after":60,"automatic":true},"gate":{"share":0.1,"at_least":3},
"results":[{"release":"1.1","good":1,"failed":2,"stopped":"2 of 3"}],"changes":18446744073709551615}
END
    echo '{"client_params":{"id":"c988","group":"workers"}}' | seed fleetlock
    echo '{"kind":"lock_held","value":"by a"}' | seed failure
}

make_sbom() {
    printf '{"payloadType":"application/vnd.in-toto+json","payload":"e30=","signatures":[{"keyid":"k","sig":"c2lnbmF0dXJl"}]}' | chosen 00 envelope
    chosen 01 copyright <<'END'
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: seed

Files: *
Copyright: 2026 A B
License: GPL-2+ or (MIT and BSD-3-clause)
 This is
 .
 free software.

Files: debian/*
License: Expat with exception

License: GPL-2+
 See /usr/share/common-licenses/GPL-2.
END
    printf 'This is free.\n\nOn Debian systems, see `/usr/share/common-licenses/GPL-3`.\n' | chosen 01 plain
    control | chosen 02 control
}

make_secrets() {
    needs openssl
    openssl ecparam -name prime256v1 -genkey -noout | seed ec.pem
    openssl genpkey -algorithm ed25519 -outform DER | seed ed25519.der
    # The example of the provider's documentation.
    printf '[default]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\n' | seed credentials
    printf 'machine example.org login a password b\nhttps://user:pass@example.org/\n' | seed netrc
    if command -v ssh-keygen > /dev/null; then
        ssh-keygen -q -t ed25519 -N '' -C seed -f "$work/ssh" && cp "$work/ssh" "$out/openssh"
    fi
}

make_seed() {
    local text='name = "seed"'
    { printf 'ASHLAR-SEED-1\n'; le32 ${#text}; printf %s "$text"; printf %s "$text" | sha256sum | cut -c1-64 | perl -pe '$_ = pack "H*", $_'; } | seed short
    printf 'cbdefghi-jklnrtuv-cbdefghi-jklnrtuv-cbdefghi-jklnrtuv-cbdefghi-jklnrtuv' | seed recovery-key
}

make_signature_lists() {
    needs openssl cert-to-efi-sig-list
    certificate
    cert-to-efi-sig-list -g 11111111-2222-3333-4444-555555555555 "$work/certificate.pem" "$out/x509" > /dev/null
    # Two hashes (EFI_CERT_SHA256_GUID).
    { printf '\x26\x16\xc4\xc1\x4c\x50\x92\x40\xac\xa9\x41\xf9\x36\x93\x43\x28'; le32 124; le32 0; le32 48; head -c 96 /dev/zero; } | seed hashes
    cat "$out/x509" "$out/hashes" | seed both
}

make_stub() {
    needs gcc objcopy
    pe "$work/program.efi"
    cp "$work/plain.efi" "$out/plain"
}

make_tar() {
    needs tar
    local format tree
    tree=$(tree)
    for format in v7 ustar gnu oldgnu pax; do
        local what=. owner=root:0
        case $format in
            # Without the names that are too long for the format.
            v7 | ustar) what=./DEBIAN ;;
            gnu | pax) owner=x:3000000 ;;
        esac
        tar "--format=$format" "--owner=$owner" --group=0 --mtime=@1700000000 --sort=name -b 1 -C "$tree" -c "$what" | seed "$format"
    done
}

# Hexadecimal digits of a size in bytes, of a buffer with its size, of an answer without and of one with an authorisation.
tpm_size() { printf "%0$1x" $((${#2} / 2 + ${3:-0})); }
tpm_sized() { printf '%s%s' "$(tpm_size 4 "$1")" "$1"; }
tpm_plain() { printf '8001%s00000000%s' "$(tpm_size 8 "$1" 10)" "$1"; }
tpm_session() {
    local body
    body=$1$(tpm_size 8 "$2")$2$3
    printf '8002%s00000000%s' "$(tpm_size 8 "$body" 10)" "$body"
}
tpm_bytes() { perl -0777 -ne 's/\s//g; print pack "H*", $_'; }
tpm_zeros() { printf '00%.0s' $(seq "$1"); }

make_tpm_response() {
    needs perl sha256sum
    local nonce password hmac name srk failure=80010000000a point
    nonce=$(tpm_sized "$(tpm_zeros 32)")
    password=0000010000
    hmac=${nonce}01$nonce
    name=$(tpm_sized "000b$(tpm_zeros 32)")
    # PCR 0, three PCRs, banks, properties, handles; time and random bytes.
    echo "00 $(tpm_plain "0000001500000001000b0301000000000001$nonce")" | tpm_bytes | seed pcr
    echo "01 $(tpm_plain "0000001500000001000b0381080000000003$nonce$nonce$nonce")" | tpm_bytes | seed pcrs
    echo "02 $(tpm_plain 000000000500000002000403000000000b03ffffff)" | tpm_bytes | seed banks
    echo "03 $(tpm_plain 0000000006000000010000010032302e30)" | tpm_bytes | seed properties
    echo "04 $(tpm_plain 0000000001000000028000000080000001)" | tpm_bytes | seed handles
    echo "05 $(tpm_plain "$(tpm_zeros 25)") $(tpm_plain 000401020304) $(tpm_plain '') $(tpm_session '' '' $password)" \
        | tpm_bytes | seed others
    echo "00 8001 0000000a 00000101" | tpm_bytes | seed failure
    # A storage root key: the base point of P-256. It is not there, is made, made persistent and read.
    point=00206b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296
    point+=00204fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5
    srk=0023000b000304720000000600800043001000030010$point
    name=$(tpm_sized "000b$(echo "$srk" | tpm_bytes | sha256sum | head -c 64)")
    srk=$(tpm_sized "$srk")
    echo "06 80010000000a0000018b" "$(tpm_session 80000000 "$srk$(tpm_sized 00)${nonce}8021400000010000$name" $password)" \
        "$(tpm_session '' '' $password)" "$(tpm_plain '')" "$(tpm_plain "$srk$name$name")" | tpm_bytes | seed storage-root-key
    # A counter: not there, defined, incremented, read.
    echo "07 80010000000a0000018b" "$(tpm_session '' '' $password)" "$(tpm_session '' '' $password)" \
        "$(tpm_session '' "$(tpm_sized 0000000000000001)" $password)" | tpm_bytes | seed counter
    echo "08 $(tpm_session '' "$(tpm_sized 0000000000000001)" $password)" | tpm_bytes | seed counter-value
    # In sessions, as far as one gets with a wrong HMAC.
    echo "09 $(tpm_plain "03000000$nonce") $(tpm_session '' '' "$hmac") $(tpm_plain '')" | tpm_bytes | seed increment
    echo "0a $(tpm_plain "03000000$nonce") $(tpm_session '' "$(tpm_sized 00)$srk$(tpm_sized 00)" "$hmac") $(tpm_plain '')" \
        | tpm_bytes | seed seal
    # LoadExternal, VerifySignature, FlushContext, Load, StartAuthSession, PolicyPCR, PolicyAuthorize, PolicyNV, Unseal,
    # FlushContext twice; and again with a PCR that changed, once.
    local begin policy
    begin="$(tpm_plain "80000000$name") $(tpm_plain "802240000001$nonce") $(tpm_plain '')"
    begin+=" $(tpm_session 80000000 "$name" $password)"
    policy="$(tpm_plain "03000000$nonce") $(tpm_plain '') $(tpm_plain '') $(tpm_session '' '' $password)"
    echo "0b $begin $policy $(tpm_session '' "$nonce" "$hmac") $(tpm_plain '') $(tpm_plain '')" | tpm_bytes | seed unseal
    echo "0b $begin $policy ${failure}00000128 $(tpm_plain '') $policy ${failure}0000099d" \
        "$(tpm_plain 00000000) $(tpm_plain '')" | tpm_bytes | seed changed
}

make_tpm_structure() {
    needs openssl perl
    local policy sealed
    policy=$(tpm_sized "$(tpm_zeros 32)")
    openssl genrsa -out "$work/pcr.pem" 2048 2> /dev/null
    openssl rsa -in "$work/pcr.pem" -pubout -outform DER -out "$work/pcr.der" 2> /dev/null
    openssl rsa -in "$work/pcr.pem" -pubout -out "$work/pcr.pub" 2> /dev/null
    chosen 03 key.der < "$work/pcr.der"
    chosen 04 key.pem < "$work/pcr.pub"
    echo "00 0001000b 00060040 0000 0010 0010 0800 00000000 $(tpm_sized "$(tpm_zeros 256)")" | tpm_bytes | seed rsa
    echo "00 0023000b 00030472 0000 0006 0080 0043 0010 0003 0010 $policy $policy" | tpm_bytes | seed ecc
    sealed="0008000b00000492${policy}0010$policy"
    echo "00 $sealed" | tpm_bytes | seed data
    echo "01 0180a541 000b 22060016 0000 0008" | tpm_bytes | seed nv
    echo "02 $(tpm_sized "$sealed") $(tpm_sized 0001)" | tpm_bytes | seed sealed
}

# A small configuration, signed by a new key.
signed_configuration() {
    local kind=application/vnd.ashlar.machine-config+toml text='serial = 1'
    printf 'DSSEv1 %d %s %d %s' ${#kind} $kind ${#text} "$text" > "$work/message"
    openssl genpkey -algorithm ed25519 -out "$work/ed25519.key"
    openssl pkeyutl -sign -rawin -inkey "$work/ed25519.key" -in "$work/message" -out "$work/signature"
    printf '{"payloadType":"%s","payload":"%s","signatures":[{"keyid":"k","sig":"%s"}]}' \
        $kind "$(printf %s "$text" | base64 -w0)" "$(base64 -w0 "$work/signature")"
}

make_dsse() {
    needs openssl
    signed_configuration > "$work/signed"
    chosen 00 envelope < "$work/signed"
    chosen 01 signed < "$work/signed"
    { printf 'ASHLAR-SEED-1\n'; le32 "$(size "$work/signed")"; cat "$work/signed"
        openssl dgst -sha256 -binary "$work/signed"; } | chosen 02 seed
}

make_machine_toml() {
    seed example < "$top/examples/machine.toml"
    grep -v '^#' "$top/examples/machine.toml" | sed -n '/network/,/^\[time/p' | sed '$d;1iserial = 1' | seed network
    printf 'serial = 0x7f\nlabels = { a = "b" }\ncontainer = [{ name = "web", cpus = 0.5, environment = { A = "" } }]\n' | seed inline
}

make_uki_pair() {
    needs gcc objcopy cpio
    uki "$work/one.efi" 'console=ttyS0'
    uki "$work/two.efi" 'console=ttyS0 quiet'
    pair "$work/one.efi" "$work/two.efi" cmdline
    pair "$work/one.efi" "$work/plain.efi" sections
    pair "$work/initrd" "$work/one.efi" no-uki
}

make_variable_store() {
    local store
    for store in /usr/share/OVMF/OVMF_VARS.ms.fd /usr/share/OVMF/OVMF_VARS_4M.ms.fd; do
        # The smallest that there is: what is behind the variables is free.
        if [ -f "$store" ]; then cp "$store" "$out/microsoft"; return; fi
    done
    echo "kept as it is: $target, because ovmf is not installed"
}

targets=("$@")
[ $# -gt 0 ] || targets=("$fuzz"/fuzz_targets/*.rs)
for target in "${targets[@]}"; do
    target=$(basename "$target" .rs)
    out=$fuzz/seeds/$target
    mkdir -p "$out"
    declare -F "make_$target" > /dev/null || { echo "there are no seeds for the target $target"; exit 1; }
    (set -e; "make_$target")
done
du -sh "$fuzz/seeds"
