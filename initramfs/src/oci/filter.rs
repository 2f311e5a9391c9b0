//! The policy of [`super::seccomp`] as programs for the kernel (seccomp(2)), for services, which have no runtime that
//! would compile it.

use super::numbers::number;
use super::seccomp::{ENOSYS, EPERM, NEW_NAMESPACES, PERSONALITIES, VSOCK, policy};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

/// A filter that looks at the first argument, 32 bits wide as the kernel takes it.
fn when(operation: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(0, SeccompCmpArgLen::Dword, operation, value)?])
}

/// The programs for a service with `capabilities`, in the order in which they must be installed. The first allows and
/// answers [`ENOSYS`] to all else; the second answers [`EPERM`] to what is refused. Where both refuse, the one that
/// was installed last gives the error number.
pub fn programs(capabilities: &[String]) -> Result<Vec<BpfProgram>, BackendError> {
    let policy = policy(capabilities);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        policy.allowed.iter().filter_map(|name| Some((number(name)?, Vec::new()))).collect();
    let mut add = |name: &str, alternatives: Vec<SeccompRule>| {
        if let Some(number) = number(name) {
            rules.entry(number).or_insert(alternatives);
        }
    };
    if !policy.namespaces {
        // Flags that ask for namespaces are all in the lower half of the argument.
        add("clone", vec![when(SeccompCmpOp::MaskedEq(NEW_NAMESPACES), 0)?]);
    }
    add("socket", vec![when(SeccompCmpOp::Ne, VSOCK)?]);
    let personalities = PERSONALITIES.map(|value| when(SeccompCmpOp::Eq, value));
    add("personality", personalities.into_iter().collect::<Result<_, _>>()?);
    let errno = |number: i32| SeccompAction::Errno(number.unsigned_abs());
    let allow = SeccompFilter::new(rules, errno(ENOSYS), SeccompAction::Allow, TargetArch::x86_64)?;

    let refused = policy.refused.iter().filter_map(|name| Some((number(name)?, Vec::new()))).collect();
    let refuse = SeccompFilter::new(refused, SeccompAction::Allow, errno(EPERM), TargetArch::x86_64)?;
    [allow, refuse].into_iter().map(TryInto::try_into).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel does: runs classic BPF over `struct seccomp_data`. Knows the instructions that filters use.
    fn run(program: &BpfProgram, number: i64, argument: u64) -> u32 {
        let mut data = Vec::new();
        data.extend(u32::try_from(number).unwrap().to_le_bytes());
        data.extend(0xc000_003e_u32.to_le_bytes());
        data.extend([0; 8]);
        data.extend(argument.to_le_bytes());
        data.extend([0; 40]);
        let (mut accumulator, mut at) = (0u32, 0usize);
        loop {
            let one = &program[at];
            at += 1;
            let jump = |holds: bool| usize::from(if holds { one.jt } else { one.jf });
            match one.code {
                0x20 => {
                    let from = one.k as usize;
                    accumulator = u32::from_le_bytes(data[from..from + 4].try_into().unwrap());
                }
                0x54 => accumulator &= one.k,
                0x05 => at += one.k as usize,
                0x15 => at += jump(accumulator == one.k),
                0x25 => at += jump(accumulator > one.k),
                0x35 => at += jump(accumulator >= one.k),
                0x06 => return one.k,
                code => panic!("instruction {code:#x}"),
            }
        }
    }

    /// The kernel takes the most restrictive answer, and of equal ones that of the filter that came last.
    fn answer(capabilities: &[&str], name: &str, argument: u64) -> Result<(), u32> {
        let capabilities: Vec<String> = capabilities.iter().map(|name| (*name).to_owned()).collect();
        let programs = programs(&capabilities).unwrap();
        assert!(programs.iter().all(|program| program.len() <= 4096), "BPF_MAXINSNS");
        let number = number(name).unwrap();
        let answers = programs.iter().rev().map(|program| run(program, number, argument));
        let refusal = answers.into_iter().find(|answer| *answer != 0x7fff_0000);
        refusal.map_or(Ok(()), |refusal| Err(refusal & 0xffff))
    }

    #[test]
    fn the_programs_do_what_the_policy_says() {
        let (eperm, enosys) = (Err(1), Err(38));
        for name in ["read", "execve", "futex", "openat", "wait4"] {
            assert_eq!(answer(&[], name, 0), Ok(()), "{name}");
        }
        for name in
            ["mount", "bpf", "ptrace", "reboot", "init_module", "io_uring_setup", "setns", "kexec_load"]
        {
            assert_eq!(answer(&[], name, 0), eperm, "{name}");
        }
        assert_eq!(answer(&[], "clone3", 0), enosys);
        assert_eq!(answer(&[], "clone", 0x0100_0011), Ok(()));
        assert_eq!(answer(&[], "clone", 0x1000_0011), eperm.or(enosys), "a user namespace");
        assert_eq!(answer(&[], "socket", 2), Ok(()));
        assert_eq!(answer(&[], "socket", 40), enosys, "vsock");
        assert_eq!(answer(&[], "personality", 0xffff_ffff), Ok(()));
        assert_eq!(answer(&[], "personality", 0x0040_0000), enosys);
        assert_eq!(answer(&["CAP_SYS_ADMIN"], "mount", 0), Ok(()));
        assert_eq!(answer(&["CAP_SYS_ADMIN"], "clone3", 0), Ok(()));
        assert_eq!(answer(&["CAP_SYS_ADMIN"], "kexec_load", 0), eperm);
        // A number that nobody knows, and the 32-bit numbers of x32.
        let programs = programs(&[]).unwrap();
        for number in [9999, 0x4000_0000] {
            assert_eq!(run(&programs[0], number, 0), 0x0005_0026);
        }
    }
}
