//! Every condition of a finding, and everything that must keep it silent, as inputs to the Engine.

mod bench;
mod requests;
