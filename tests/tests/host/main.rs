//! The agent with clients as they are in real pods (curl, boto3, the AWS CLI), its command line, and what it says when it
//! cannot run. Needs what `cargo xtask setup` installs.

mod bad_input;
mod ceilings;
mod clients;
mod command_line;
mod devices;
mod dns;
mod faults;
mod floods;
mod forecast;
mod history;
mod manifest;
mod shipping;
mod top;
