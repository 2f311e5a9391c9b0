//! Partition images as blocks: what an update lacks, and nothing else, is fetched.
