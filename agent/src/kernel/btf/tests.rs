//! The reader against the running kernel and against files that lie.

use super::*;

#[test]
fn finds_every_field_of_the_running_kernel() {
    let offsets = offsets(Path::new("/sys/kernel/btf/vmlinux")).expect("this kernel has BTF");
    assert_eq!(offsets.sk_daddr, 0, "the remote address has been the first member since 2.6");
    assert_eq!(offsets.sk_rcv_saddr, 4);
    assert_ne!(offsets.task_comm, offsets.task_tgid);
}

#[test]
fn survives_any_cut_and_any_flipped_byte() {
    let data = fs::read("/sys/kernel/btf/vmlinux").expect("this kernel has BTF");
    let step = data.len() / 200 + 1;
    for cut in (0..data.len()).step_by(step) {
        let _ = Types::parse(&data[..cut]);
    }
    let mut data = data[..data.len().min(400_000)].to_vec();
    let step = data.len() / 500 + 1;
    for at in (0..data.len()).step_by(step) {
        data[at] ^= 0xff;
        if let Some(types) = Types::parse(&data) {
            let _ = types.offset("sock", "sk_err");
        }
        data[at] ^= 0xff;
    }
}

#[test]
fn names_what_is_not_there() {
    let data = fs::read("/sys/kernel/btf/vmlinux").expect("this kernel has BTF");
    let types = Types::parse(&data).expect("parses");
    assert_eq!(types.offset("sock", "no_such_member"), None);
    assert_eq!(types.offset("no_such_struct", "member"), None);
}
