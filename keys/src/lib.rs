//! Key hierarchy, signers, Authenticode, EFI signature lists and variables, PCR policies.
