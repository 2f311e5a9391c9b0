//! What a channel offers to which machine, and why.
