//! Every condition of a finding, and everything that must keep it silent, as inputs to the Engine.

mod bad_input;
mod bench;
mod flow_others;
mod flow_peers;
mod flows;
mod late_facts;
mod replay;
mod requests;
mod restarts;
mod room;
mod rules;
mod tokens;
mod traffic;
