//! EFI programs made here: they print, set variables and switch the machine off. Enough x86-64 machine code
//! for that is written out below.

use ashlar_measured_boot::efi::Guid;

/// Where the code lies in memory, relative to the image.
const CODE: u32 = 0x1000;
/// Where the data lies in memory.
const DATA: u32 = 0x2000;
/// Room for code in the file.
const CODE_SIZE: usize = 0x600;

/// A program under construction. `rbx` holds the system table while it runs.
pub struct Program {
    code: Vec<u8>,
    data: Vec<u8>,
}

impl Program {
    pub fn new() -> Self {
        // sub rsp, 0x38 ; mov rbx, rdx
        Self { code: b"\x48\x83\xec\x38\x48\x89\xd3".to_vec(), data: Vec::new() }
    }

    fn datum(&mut self, bytes: &[u8]) -> u32 {
        self.data.resize(self.data.len().next_multiple_of(8), 0);
        let address = DATA + self.data.len() as u32;
        self.data.extend(bytes);
        address
    }

    fn text(&mut self, text: &str) -> u32 {
        let text: Vec<u8> = format!("{text}\0").encode_utf16().flat_map(u16::to_le_bytes).collect();
        self.datum(&text)
    }

    /// lea REGISTER, [rip + address]
    fn lea(&mut self, register: &[u8], address: u32) {
        self.code.extend(register);
        let next = CODE + self.code.len() as u32 + 4;
        self.code.extend(address.wrapping_sub(next).to_le_bytes());
    }

    /// Prints the text that rdx points to: mov rcx, [rbx+64] (ConOut) ; call [rcx+8] (OutputString)
    fn print_rdx(&mut self) {
        self.code.extend(b"\x48\x8b\x4b\x40\xff\x51\x08");
    }

    /// Prints a text.
    pub fn print(mut self, text: &str) -> Self {
        let text = self.text(text);
        self.lea(b"\x48\x8d\x15", text);
        self.print_rdx();
        self
    }

    /// Calls `SetVariable` and prints `NAME written` or `NAME refused`.
    pub fn set_variable(mut self, name: &str, vendor: Guid, attributes: u32, data: &[u8]) -> Self {
        let address = self.text(name);
        self.lea(b"\x48\x8d\x0d", address); // lea rcx
        let address = self.datum(&vendor.to_bytes());
        self.lea(b"\x48\x8d\x15", address); // lea rdx
        self.code.extend(b"\x41\xb8"); // mov r8d, attributes
        self.code.extend(attributes.to_le_bytes());
        self.code.extend(b"\x41\xb9"); // mov r9d, size
        self.code.extend((data.len() as u32).to_le_bytes());
        let address = self.datum(data);
        self.lea(b"\x48\x8d\x05", address); // lea rax
        // mov [rsp+0x20], rax ; mov rax, [rbx+88] (RuntimeServices) ; call [rax+88] (SetVariable)
        self.code.extend(b"\x48\x89\x44\x24\x20\x48\x8b\x43\x58\xff\x50\x58");
        let (written, refused) =
            (self.text(&format!("{name} written\r\n")), self.text(&format!("{name} refused\r\n")));
        self.lea(b"\x48\x8d\x15", written); // lea rdx
        self.lea(b"\x48\x8d\x0d", refused); // lea rcx
        self.code.extend(b"\x48\x85\xc0\x48\x0f\x45\xd1"); // test rax, rax ; cmovne rdx, rcx
        self.print_rdx();
        self
    }

    /// The program as a file; it ends by switching the machine off.
    pub fn build(mut self) -> Vec<u8> {
        // mov rax, [rbx+88] ; mov ecx, 2 (EfiResetShutdown) ; xor edx, edx ; xor r8d, r8d ; xor r9d, r9d ;
        // call [rax+104] (ResetSystem) ; jmp to itself
        self.code.extend(
            b"\x48\x8b\x43\x58\xb9\x02\x00\x00\x00\x31\xd2\x45\x31\xc0\x45\x31\xc9\xff\x50\x68\xeb\xfe",
        );
        assert!(self.code.len() <= CODE_SIZE);
        let data_size = self.data.len().next_multiple_of(0x200);
        let mut b = vec![0; 0x400 + CODE_SIZE + data_size];
        let mut put = |at: usize, value: &[u8]| b[at..at + value.len()].copy_from_slice(value);
        put(0, b"MZ");
        put(0x3c, &0x40u32.to_le_bytes());
        put(0x40, b"PE\0\0");
        put(0x44, &0x8664u16.to_le_bytes());
        put(0x46, &2u16.to_le_bytes());
        put(0x54, &240u16.to_le_bytes());
        put(0x56, &0x22u16.to_le_bytes());
        let o = 0x58;
        put(o, &0x20bu16.to_le_bytes());
        put(o + 16, &CODE.to_le_bytes());
        put(o + 20, &CODE.to_le_bytes());
        put(o + 32, &0x1000u32.to_le_bytes());
        put(o + 36, &0x200u32.to_le_bytes());
        put(o + 56, &(DATA + (data_size as u32).next_multiple_of(0x1000)).to_le_bytes());
        put(o + 60, &0x400u32.to_le_bytes());
        put(o + 68, &10u16.to_le_bytes());
        put(o + 108, &16u32.to_le_bytes());
        for (i, (name, address, size, raw, flags)) in [
            (b".text\0\0\0", CODE, CODE_SIZE, 0x400, 0x6000_0020u32),
            (b".data\0\0\0", DATA, data_size, 0x400 + CODE_SIZE, 0xc000_0040),
        ]
        .into_iter()
        .enumerate()
        {
            let s = o + 240 + i * 40;
            put(s, name);
            put(s + 8, &(size as u32).to_le_bytes());
            put(s + 12, &address.to_le_bytes());
            put(s + 16, &(size as u32).to_le_bytes());
            put(s + 20, &(raw as u32).to_le_bytes());
            put(s + 36, &flags.to_le_bytes());
        }
        put(0x400, &self.code);
        put(0x400 + CODE_SIZE, &self.data);
        b
    }
}

/// A program that says hello.
pub fn hello() -> Vec<u8> {
    Program::new().print("hello from a signed program\r\n").build()
}
