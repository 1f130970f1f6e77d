//! Disks, EBS volumes, ENA counters, memory, inotify.

use std::io;

use super::*;
use crate::node::collect::{disks, ebs, ena, inotify, memory};

/// As the kernel prints them: `/` on one device, the kubelet's and the runtime's directories on another.
pub(super) const HOST_MOUNTS: &str = "\
22 1 259:1 / / rw,noatime shared:1 - xfs /dev/nvme0n1p1 rw
23 22 0:21 / /proc rw,nosuid shared:12 - proc proc rw
30 22 259:5 / /var/lib rw,noatime shared:2 - xfs /dev/nvme1n1 rw
31 30 0:50 / /var/lib/kubelet/pods/a/volumes/token rw - tmpfs tmpfs rw
";

/// The root of an image-based system.
pub(super) const IMAGE: &str = "253:0 / / ro,relatime shared:1 - ext4 /dev/dm-0 ro,seclabel";

/// As a container sees them: the runtime's layers as its root, files of the kubelet's bound over its own.
pub(super) const OWN_MOUNTS: &str = "\
500 400 0:99 / / ro,relatime - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w
501 500 259:5 /kubelet/pods/b/etc-hosts /etc/hosts rw,noatime - xfs /dev/nvme1n1 rw
502 500 259:1 /var/log /host/log ro,noatime - xfs /dev/nvme0n1p1 rw
";

#[expect(clippy::unnecessary_wraps, reason = "the form of what asks the kernel")]
pub(super) fn measure(path: &Path) -> io::Result<disks::Space> {
    let space = |minor, used_bytes, available_bytes, inodes, free_inodes| disks::Space {
        device: (259, minor),
        used_bytes,
        available_bytes,
        inodes,
        free_inodes,
    };
    Ok(match path.to_str().expect("a path") {
        "/etc/hosts" => space(5, 600, 300, 100, 25),
        "/host/log" => space(1, 10, 90, 0, 0),
        _ => space(77, 1, 1, 1, 1),
    })
}

fn file_system(path: &str) -> Scope {
    Scope::FileSystem(path.into())
}

#[test]
fn file_systems_are_found_by_their_device() {
    let node = Fixture::new();
    node.put("proc/1/mountinfo", HOST_MOUNTS).put("proc/self/mountinfo", OWN_MOUNTS);
    let look = || Seen::by(Collector::Disks, disks::Disks::new(&node.roots, measure));
    let seen = look();
    assert_eq!(seen.error, None);
    assert_eq!(seen.figures(Resource::DiskBytes, &file_system("/var/lib")), Some((Some(600), Limit::Of(900))));
    assert_eq!(seen.figures(Resource::DiskInodes, &file_system("/var/lib")), Some((Some(75), Limit::Of(100))));
    assert_eq!(seen.figures(Resource::DiskBytes, &file_system("/")), Some((Some(10), Limit::Of(100))));
    assert_eq!(seen.figures(Resource::DiskInodes, &file_system("/")), None, "a file system without a number of inodes");
    assert_eq!(seen.samples.len(), 3, "each device once");

    // An image that nobody can write to is no file system that fills, and no failure where it is not in sight.
    node.put("proc/1/mountinfo", &HOST_MOUNTS.replace("259:1 / / rw,noatime shared:1 - xfs /dev/nvme0n1p1 rw", IMAGE));
    let seen = look();
    assert_eq!((seen.error, seen.samples.len()), (None, 2));
    node.put("proc/1/mountinfo", HOST_MOUNTS);

    // Nothing of the root's device is in sight.
    node.put("proc/self/mountinfo", &OWN_MOUNTS.replace("259:1", "259:9"));
    let seen = look();
    let error = seen.error.as_deref().expect("an error");
    assert!(error.contains("file system at /:") && error.contains("259:1"), "{error}");
    assert!(seen.figures(Resource::DiskBytes, &file_system("/var/lib")).is_some(), "the other is right");

    node.put("proc/1/mountinfo", "22 1 259:1 / / rw");
    assert!(look().error.is_some_and(|error| error.contains("1/mountinfo")));
}

#[test]
fn the_real_measure_is_of_the_path() {
    let space = disks::measure(Path::new("/")).expect("a root");
    assert!(space.used_bytes > 0);
    assert!(disks::measure(Path::new("/nonexistent")).is_err());
}

pub(super) fn volume(node: &Fixture, device: &str, serial: &str, stat: &str) {
    node.put(&format!("sys/block/{device}/device/model"), "Amazon Elastic Block Store              \n");
    node.put(&format!("sys/block/{device}/device/serial"), &format!("{serial}\n"));
    node.put(&format!("sys/block/{device}/stat"), stat);
}

#[test]
fn volumes_are_counted_once() {
    let node = Fixture::new();
    let mut look = ebs::Ebs::new(&node.roots);
    node.put("sys/block/loop0/stat", "0\n");
    assert!(Seen::again(Collector::Ebs, &mut look).absent);
    volume(&node, "nvme0n1", "vol0aaa", "      10 1 100 5       20 2      200 9 0 0 0\n");
    volume(&node, "nvme1n1", "vol0bbb", "1 0 8 0 1 0 8 0 0 0 0\n");
    volume(&node, "nvme1c0n1", "vol0bbb", "1 0 8 0 1 0 8 0 0 0 0\n");
    node.put("sys/block/nvme9n1/device/model", "Amazon EC2 NVMe Instance Storage\n");
    let seen = Seen::again(Collector::Ebs, &mut look);
    assert_eq!((&seen.error, seen.samples.len()), (&None, 1), "no pace at the first look");
    assert_eq!(seen.figures(Resource::EbsVolumes, &Scope::Node), Some((Some(2), Limit::Unknown)));

    volume(&node, "nvme2n1", "vol0ccc", "broken\n");
    node.put("sys/block/nvme3n1/stat", "");
    let seen = Seen::again(Collector::Ebs, &mut look);
    assert!(seen.error.as_deref().is_some_and(|error| error.contains("nvme2n1/stat")), "{seen:?}");
    assert_eq!(seen.figures(Resource::EbsVolumes, &Scope::Node), Some((Some(2), Limit::Unknown)), "the rest is right");
}

fn card(node: &Fixture, interface: &str, driver: &str) {
    let device = node.roots.sys.join("class/net").join(interface).join("device");
    fs::create_dir_all(&device).expect("directories");
    std::os::unix::fs::symlink(format!("../../../bus/pci/drivers/{driver}"), device.join("driver")).expect("a link");
}

pub(super) fn ask(interface: &str) -> io::Result<Vec<(String, u64)>> {
    let counters = |told: &[(&str, u64)]| told.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    match interface {
        "eth0" => Ok(counters(&[
            ("tx_timeout", 1),
            ("bw_in_allowance_exceeded", 2),
            ("conntrack_allowance_exceeded", 3),
            ("conntrack_allowance_available", 1_000),
        ])),
        // An older driver.
        "eth1" => Ok(counters(&[("bw_out_allowance_exceeded", 5)])),
        "eth2" => Err(io::Error::from_raw_os_error(libc::ENODEV)),
        _ => Err(io::Error::from_raw_os_error(libc::EPERM)),
    }
}

#[test]
fn counters_of_network_cards() {
    let node = Fixture::new();
    card(&node, "veth1", "veth");
    let mut look = ena::Ena::new(&node.roots, ask);
    assert!(Seen::again(Collector::Ena, &mut look).absent);
    for interface in ["eth0", "eth1", "eth2", "eth3"] {
        card(&node, interface, "ena");
    }
    let seen = Seen::again(Collector::Ena, &mut look);
    let error = seen.error.as_deref().expect("an error");
    assert!(error.contains("eth3"), "one that vanished is no error, one that refuses is: {error}");
    let of = |name, interface: &str| seen.counter(name, &Scope::Interface(interface.into()));
    assert_eq!(of(CounterName::BandwidthInExceeded, "eth0"), Some(2));
    assert_eq!(of(CounterName::ConntrackExceeded, "eth0"), Some(3));
    assert_eq!(of(CounterName::BandwidthOutExceeded, "eth1"), Some(5));
    assert_eq!(of(CounterName::LinklocalExceeded, "eth0"), None, "absent is not zero");
    assert_eq!(seen.counters.len(), 3);
    assert_eq!(seen.figures(Resource::EnaConntrackAllowance, &Scope::Node), Some((None, Limit::Of(1_000))));

    look.ask = |_| Ok(vec![("conntrack_allowance_available".to_owned(), 400)]);
    let seen = Seen::again(Collector::Ena, &mut look);
    assert_eq!(
        seen.figures(Resource::EnaConntrackAllowance, &Scope::Node),
        Some((Some(600), Limit::Of(1_000))),
        "what is left is exact: 400"
    );
}

pub(super) const MEMINFO: &str = "MemTotal:       16000000 kB\nMemFree:         1000000 kB\nMemAvailable:    4000000 kB\n\
                       Buffers:          100000 kB\nCached:          3000000 kB\nSwapCached:            0 kB\n\
                       Active:           100000 kB\nInactive:         100000 kB\nSwapTotal:             0 kB\n\
                       SwapFree:              0 kB\nDirty:                 0 kB\nWriteback:             0 kB\n\
                       AnonPages:        100000 kB\nMapped:           100000 kB\nShmem:            100000 kB\n\
                       Slab:             100000 kB\nKReclaimable:     100000 kB\nCommitLimit:      100000 kB\n\
                       Committed_AS:     100000 kB\nVmallocTotal:     100000 kB\nVmallocUsed:      100000 kB\n\
                       VmallocChunk:          0 kB\nPageTables:         1000 kB\n";

#[test]
fn memory_and_pressure() {
    let node = Fixture::new();
    let pressure =
        "some avg10=0.00 avg60=0.00 avg300=0.27 total=4260991\nfull avg10=0.00 avg60=0.00 avg300=0.18 total=3024162\n";
    node.put("proc/meminfo", MEMINFO).put("proc/pressure/memory", pressure);
    let look = || Seen::by(Collector::Memory, memory::Memory::new(&node.roots));
    let seen = look();
    assert_eq!(seen.error, None);
    assert_eq!(
        seen.figures(Resource::Memory, &Scope::Node),
        Some((Some(12_000_000 * 1_024), Limit::Of(16_000_000 * 1_024)))
    );
    assert_eq!(seen.counter(CounterName::MemoryStallMicros, &Scope::Node), Some(4_260_991));
    assert_eq!(seen.counter(CounterName::MemoryFullStallMicros, &Scope::Node), Some(3_024_162));

    node.remove("proc/pressure");
    assert_eq!(look().error, None, "a kernel without the accounting");
    node.put("proc/pressure/memory", "some avg10=x\n").put("proc/meminfo", &MEMINFO.replace("MemAvailable", "Other"));
    let seen = look();
    assert!(seen.error.is_some_and(|error| error.contains("meminfo")));
    assert_eq!((seen.samples, seen.counters), (Vec::new(), Vec::new()));
}

#[test]
fn inotify_of_the_greediest_user() {
    let node = Fixture::new();
    node.put("proc/sys/fs/inotify/max_user_watches", "524288\n");
    node.put("proc/sys/fs/inotify/max_user_instances", "8192\n");
    for (pid, descriptor, watches) in [(10, 3, 2), (10, 4, 0), (11, 5, 5)] {
        node.put(&format!("proc/{pid}/fd/1"), "");
        std::os::unix::fs::symlink("anon_inode:inotify", node.roots.proc.join(format!("{pid}/fd/{descriptor}")))
            .expect("a link");
        let info = format!("pos:\t0\nflags:\t00\n{}", "inotify wd:1 ino:2 sdev:3 mask:4\n".repeat(watches));
        node.put(&format!("proc/{pid}/fdinfo/{descriptor}"), &info);
    }
    let seen = Seen::by(Collector::Inotify, inotify::Inotify::new(&node.roots));
    assert_eq!(seen.error, None);
    assert_eq!(seen.figures(Resource::InotifyInstances, &Scope::Node), Some((Some(3), Limit::Of(8_192))));
    assert_eq!(seen.figures(Resource::InotifyWatches, &Scope::Node), Some((Some(7), Limit::Of(524_288))));
}
