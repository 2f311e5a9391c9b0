//! The system calls that rustix has no safe function for. All `unsafe` code of this crate is here.
#![allow(unsafe_code)]

use crate::supervision::confine::Confinement;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn length_of<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

/// An ioctl whose argument is a buffer that tells its own length in its `data_size` field, as the device mapper's
/// is. The buffer is in and out.
pub fn ioctl_buffer(file: &File, request: u32, buffer: &mut [u8]) -> io::Result<()> {
    // SAFETY: `buffer` is valid for reading and writing; the device mapper touches `data_size` bytes at most, which
    // `dm::argument` sets to the buffer's length.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::Ioctl::from(request), buffer.as_mut_ptr()) })?;
    Ok(())
}

fn link_address(interface: u32, to: [u8; 6]) -> libc::sockaddr_ll {
    // SAFETY: `sockaddr_ll` consists of integers; all zeros are a value of it.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_IP as u16).to_be();
    address.sll_ifindex = interface.cast_signed();
    address.sll_halen = 6;
    address.sll_addr[..6].copy_from_slice(&to);
    address
}

/// One instruction of a classic BPF program: code, jump if true, jump if false, operand.
pub type Instruction = (u16, u8, u8, u32);

/// A packet socket for the IPv4 packets of one interface that `filter` lets through, without link headers. It
/// does not block.
pub fn packet_socket(interface: u32, filter: &[Instruction]) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // Protocol 0 receives nothing: no packet comes in before the filter is set and the interface chosen.
    // SAFETY: no memory is involved.
    let raw = check(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    let mut program: Vec<libc::sock_filter> =
        filter.iter().map(|&(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k }).collect();
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: `program` points to `len` instructions that live until the call is over; the kernel copies them.
    check(unsafe {
        libc::setsockopt(
            raw,
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            length_of::<libc::sock_fprog>(),
        )
    })?;
    let address = link_address(interface, [0; 6]);
    // SAFETY: `address` is a `sockaddr_ll` and the length is its size.
    check(unsafe { libc::bind(raw, (&raw const address).cast(), length_of::<libc::sockaddr_ll>()) })?;
    Ok(socket)
}

/// Sends an IPv4 packet to a link address through a packet socket.
pub fn send_packet(socket: &OwnedFd, interface: u32, to: [u8; 6], packet: &[u8]) -> io::Result<()> {
    let address = link_address(interface, to);
    // SAFETY: `packet` and `address` are valid for reading for the lengths given.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            packet.as_ptr().cast(),
            packet.len(),
            libc::MSG_NOSIGNAL,
            (&raw const address).cast(),
            length_of::<libc::sockaddr_ll>(),
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes `command` start in a session of its own, in the control group whose `cgroup.procs` is given, and as
/// `confinement` says.
pub fn start_confined(command: &mut Command, procs: File, confinement: Confinement) {
    let enter = move || {
        rustix::process::setsid()?;
        // "0" is whoever writes.
        rustix::io::write(&procs, b"0")?;
        confinement.enter()
    };
    // SAFETY: between fork and exec the closure makes system calls only; it allocates nothing and takes no lock
    // ([`Confinement::enter`]).
    unsafe { command.pre_exec(enter) };
}

/// Puts a key of the type `logon` into the keyring of this process, from which the device mapper takes it
/// (keyrings(7)). Its content can never be read back. Gives its serial number.
pub fn add_logon_key(description: &std::ffi::CStr, secret: &[u8]) -> io::Result<i32> {
    // SAFETY: the three pointers are valid for reading for the lengths given; the kernel copies all of it.
    let serial = unsafe {
        libc::syscall(
            libc::SYS_add_key,
            c"logon".as_ptr(),
            description.as_ptr(),
            secret.as_ptr(),
            secret.len(),
            libc::KEY_SPEC_PROCESS_KEYRING,
        )
    };
    check(serial as libc::c_int)
}

/// Makes a key useless and lets the kernel forget it.
pub fn revoke_key(serial: i32) -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_REVOKE, serial) } as libc::c_int)?;
    Ok(())
}

/// An ioctl whose argument is an `int`, in and out: those of watchdogs (Linux, `include/uapi/linux/watchdog.h`).
/// Gives the `int` afterwards.
pub fn ioctl_int(file: &File, request: u32, value: i32) -> io::Result<i32> {
    let mut value: libc::c_int = value;
    // SAFETY: the callers' requests are declared with an `int`; `value` is one and is valid for reading and writing.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::Ioctl::from(request), &raw mut value) })?;
    Ok(value)
}

/// Mixes `entropy` into the kernel's random numbers and credits `bits` for it (random(4), `RNDADDENTROPY`).
pub fn add_entropy(device: &File, entropy: &[u8; 64], bits: u32) -> io::Result<()> {
    /// `_IOW('R', 3, int[2])`.
    const RNDADDENTROPY: u32 = 0x4008_5203;
    /// `struct rand_pool_info` with its content.
    #[repr(C)]
    struct PoolInfo {
        entropy_count: libc::c_int,
        buf_size: libc::c_int,
        buf: [u8; 64],
    }
    let info = PoolInfo { entropy_count: bits.min(512).cast_signed(), buf_size: 64, buf: *entropy };
    // SAFETY: the kernel reads the two numbers and then `buf_size` bytes, all of which `info` has.
    check(unsafe { libc::ioctl(device.as_raw_fd(), libc::Ioctl::from(RNDADDENTROPY), &raw const info) })?;
    Ok(())
}

/// Shows the kernel's messages on the virtual console `number` instead of the one in front (ioctl_console(2),
/// `TIOCLINUX` with subcode 11).
pub fn send_kernel_messages_to(console: &File, number: u8) -> io::Result<()> {
    let argument: [u8; 2] = [11, number];
    // SAFETY: this subcode reads one byte after its own, and `argument` has both.
    check(unsafe { libc::ioctl(console.as_raw_fd(), libc::TIOCLINUX, argument.as_ptr()) })?;
    Ok(())
}

/// Sets an option of a socket whose value is a number.
pub fn set_socket_option(socket: &OwnedFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: `value` is valid for reading for the length given; the kernel copies it.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            length_of::<libc::c_int>(),
        )
    })?;
    Ok(())
}

/// Lets the kernel move the clock by `offset` nanoseconds, half a second at most, with its phase-locked loop of the
/// time constant 2^(4 + `constant`) seconds (adjtimex(2)). From then on the kernel also keeps the hardware clock right.
pub fn slew_clock(offset: i64, constant: i64) -> io::Result<()> {
    // SAFETY: `timex` consists of integers; all zeros are a value of it.
    let mut change: libc::timex = unsafe { std::mem::zeroed() };
    change.modes = libc::ADJ_OFFSET
        | libc::ADJ_STATUS
        | libc::ADJ_NANO
        | libc::ADJ_TIMECONST
        | libc::ADJ_MAXERROR
        | libc::ADJ_ESTERROR;
    change.status = libc::STA_PLL;
    change.offset = offset;
    change.constant = constant;
    // SAFETY: `change` is valid for reading and writing.
    check(unsafe { libc::adjtimex(&raw mut change) })?;
    Ok(())
}

/// Sets the hardware clock to a time in seconds since 1970, in UTC (rtc(4)).
pub fn set_rtc(rtc: &File, seconds: i64) -> io::Result<()> {
    /// `RTC_SET_TIME`: `_IOW('p', 0x0a, struct rtc_time)`, which is nine integers: the first of `struct tm`.
    const SET_TIME: u32 = 1 << 30 | 36 << 16 | (b'p' as u32) << 8 | 0x0a;
    // SAFETY: `tm` consists of integers and a pointer that may be null; all zeros are a value of it.
    let mut parts: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both are valid; the function uses no time zone.
    if unsafe { libc::gmtime_r(&raw const seconds, &raw mut parts) }.is_null() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let time: [libc::c_int; 9] =
        [parts.tm_sec, parts.tm_min, parts.tm_hour, parts.tm_mday, parts.tm_mon, parts.tm_year, 0, 0, 0];
    // SAFETY: `time` is valid for reading and of the size that the kernel reads.
    check(unsafe { libc::ioctl(rtc.as_raw_fd(), libc::Ioctl::from(SET_TIME), time.as_ptr()) })?;
    Ok(())
}

/// Gives the calling process mounts of its own: what it changes of them is seen by nobody else. It must have one thread.
pub fn own_mounts() -> io::Result<()> {
    // SAFETY: the descriptors stay shared with nobody: of what can be unshared, only mounts are.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }?;
    let flags = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
    Ok(rustix::mount::mount_change(c"/", flags)?)
}
