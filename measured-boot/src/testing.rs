//! PE files for tests, made here.

/// Overwrites bytes at `at`.
pub fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// Offset of the optional header in [`image`].
pub const OPTIONAL: usize = 0x58;

/// An x86-64 EFI file with these sections: name, content, characteristics.
pub fn image(sections: &[(&str, &[u8], u32)]) -> Vec<u8> {
    const HEADERS: usize = 0x400;
    let mut b = vec![0; HEADERS];
    put(&mut b, 0, b"MZ");
    put(&mut b, 0x3c, &0x40u32.to_le_bytes());
    put(&mut b, 0x40, b"PE\0\0");
    put(&mut b, 0x44, &0x8664u16.to_le_bytes());
    put(&mut b, 0x46, &u16::try_from(sections.len()).unwrap().to_le_bytes());
    put(&mut b, 0x54, &240u16.to_le_bytes());
    put(&mut b, 0x56, &0x22u16.to_le_bytes());
    let o = OPTIONAL;
    put(&mut b, o, &0x20bu16.to_le_bytes());
    put(&mut b, o + 16, &0x1000u32.to_le_bytes());
    put(&mut b, o + 20, &0x1000u32.to_le_bytes());
    put(&mut b, o + 32, &0x1000u32.to_le_bytes());
    put(&mut b, o + 36, &0x200u32.to_le_bytes());
    put(&mut b, o + 60, &(HEADERS as u32).to_le_bytes());
    put(&mut b, o + 68, &10u16.to_le_bytes());
    put(&mut b, o + 108, &16u32.to_le_bytes());
    let mut address = 0x1000u32;
    for (i, (name, content, characteristics)) in sections.iter().enumerate() {
        let (header, raw, size) = (o + 240 + i * 40, b.len() as u32, content.len() as u32);
        put(&mut b, header, name.as_bytes());
        put(&mut b, header + 8, &size.to_le_bytes());
        put(&mut b, header + 12, &address.to_le_bytes());
        put(&mut b, header + 16, &size.next_multiple_of(0x200).to_le_bytes());
        put(&mut b, header + 20, &raw.to_le_bytes());
        put(&mut b, header + 36, &characteristics.to_le_bytes());
        b.extend(*content);
        b.resize(b.len().next_multiple_of(0x200), 0);
        address += size.next_multiple_of(0x1000).max(0x1000);
    }
    put(&mut b, o + 56, &address.to_le_bytes());
    b
}

/// An EFI program with two sections that returns at once.
pub fn program() -> Vec<u8> {
    let (mut text, mut data) = ([0; 0x180], [0; 0x180]);
    text[0] = 0xc3;
    data[0x100] = 7;
    image(&[(".text", &text, 0x6000_0020), (".data", &data, 0xc000_0040)])
}

/// A unified kernel image with a stub of `version`, whose kernel is [`program`], and `more` sections.
pub fn uki(version: &str, more: &[(&str, &[u8])]) -> Vec<u8> {
    let magic = format!("#### LoaderInfo: systemd-stub {version} ####");
    let kernel = program();
    let own: [(&str, &[u8]); 6] = [
        (".text", &[0xc3; 16]),
        (".sbat", b"sbat,1\n"),
        (".sdmagic", magic.as_bytes()),
        (".linux", &kernel),
        (".osrel", b"ID=test\n"),
        (".initrd", b"an initrd of 25 bytes....."),
    ];
    let all: Vec<_> = own.iter().chain(more).map(|(name, content)| (*name, *content, 0x4000_0040)).collect();
    image(&all)
}
