//! TUF: a client that trusts what it must, and the repository that it reads.
