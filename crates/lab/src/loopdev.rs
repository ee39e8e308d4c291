//! Loop devices: a host's disk image as a block device that goes by itself when nobody holds it.
//!
//! Always with autoclear: when a host's last process and mount are gone, the kernel detaches the device, also after a
//! crash of everything of ours.

use crate::LabError;
use crate::error::Context;
use crate::wait;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LOOP_CLR_FD: libc::c_ulong = 0x4C01;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
/// Other programs may take the free device between our two calls.
const ATTEMPTS: u32 = 32;
/// Block device major of loop devices.
pub const MAJOR: u32 = 7;

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
struct LoopInfo {
    numbers: [u64; 5],
    number: u32,
    encrypt: [u32; 2],
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of linux/loop.h.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopConfig>() == 304);

/// An attached device. Dropping it lets the device go unless it is mounted.
#[derive(Debug)]
pub struct LoopDevice {
    /// N of /dev/loopN.
    pub number: u32,
    /// Held until the mount holds it.
    _device: File,
    /// Where to mount it from.
    pub path: PathBuf,
}

/// Attaches an image. `dir`: where a device node is made if /dev has none.
///
/// An image that is still attached is refused: two file systems over one image would destroy it.
pub fn attach(image: &Path, dir: &Path) -> Result<LoopDevice, LabError> {
    if let Some(number) = below(image).first() {
        return Err(LabError::Machine(format!("{} is still in use as loop{number}: try again", image.display())));
    }
    let control = open("/dev/loop-control".as_ref())?;
    let backing = open(image)?;
    for _ in 0..ATTEMPTS {
        // SAFETY: this ioctl takes no argument and returns a number.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
        let number = u32::try_from(number).map_err(|_| io::Error::last_os_error());
        let number = number.what(|| "no free loop device".to_owned())?;
        let path = node(number, dir)?;
        let device = open(&path)?;
        let config = LoopConfig {
            fd: u32::try_from(backing.as_raw_fd()).expect("descriptors are positive"),
            block_size: 0,
            info: LoopInfo {
                numbers: [0; 5],
                number: 0,
                encrypt: [0; 2],
                flags: LO_FLAGS_AUTOCLEAR,
                file_name: [0; 64],
                crypt_name: [0; 64],
                key: [0; 32],
                init: [0; 2],
            },
            reserved: [0; 8],
        };
        // SAFETY: the argument is a valid loop_config that outlives the call.
        if unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) } == 0 {
            return Ok(LoopDevice { number, _device: device, path });
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EBUSY) {
            return Err(error).what(|| format!("cannot attach {} to loop{number}", image.display()));
        }
    }
    Err(LabError::Machine("other programs took every free loop device before the lab could: try again".to_owned()))
}

/// Devices whose image lies below a directory.
pub fn below(dir: &Path) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/sys/block") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("loop")?.parse().ok())
        .filter(|number| backing_file(*number).is_some_and(|file| file.starts_with(dir)))
        .collect()
}

/// Image of a device; None when it is free.
pub fn backing_file(number: u32) -> Option<PathBuf> {
    let text = std::fs::read_to_string(format!("/sys/block/loop{number}/loop/backing_file")).ok()?;
    Some(PathBuf::from(text.trim_end().trim_end_matches(" (deleted)")))
}

/// Waits until the kernel has let go of the image.
pub fn wait_detached(number: u32, image: &Path, limit: Duration) -> bool {
    wait::until(limit, || backing_file(number).as_deref() != Some(image))
}

/// Asks for detachment (for remains of a crash; lazily when it is still mounted somewhere).
pub fn detach(number: u32) {
    if let Ok(device) = open(format!("/dev/loop{number}").as_ref()) {
        // SAFETY: this ioctl takes no argument.
        unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CLR_FD) };
    }
}

fn open(path: &Path) -> Result<File, LabError> {
    OpenOptions::new().read(true).write(true).open(path).what(|| format!("cannot open {}", path.display()))
}

/// The device's node; containers often have fewer in /dev than the kernel has devices.
fn node(number: u32, dir: &Path) -> Result<PathBuf, LabError> {
    let path = PathBuf::from(format!("/dev/loop{number}"));
    if wait::until(Duration::from_millis(50), || path.exists()) {
        return Ok(path);
    }
    let own = dir.join(format!("loop{number}"));
    if !own.exists() {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let device = rustix::fs::makedev(MAJOR, number);
        rustix::fs::mknodat(rustix::fs::CWD, &own, rustix::fs::FileType::BlockDevice, mode, device)
            .what(|| format!("cannot make the device node {}", own.display()))?;
    }
    Ok(own)
}
