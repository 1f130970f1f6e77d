//! Every condition of a finding, and everything that must keep it silent, as inputs to the Engine.

mod bad_input;
mod bench;
mod flow_others;
mod flow_peers;
mod flows;
mod replay;
mod requests;
mod restarts;
mod rules;
mod traffic;
