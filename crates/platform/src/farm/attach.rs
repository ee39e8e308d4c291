//! How the filter gets on an interface and stays there without its process: a pinned TCX link, else a clsact filter.

use super::{FilterError, Place, kernel};
use aya::Ebpf;
use aya::programs::links::{FdLink, Link, LinkError, PinnedLink};
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType, TestRun, TestRunOptions};
use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Magic number of a BPF file system.
const BPF_FS: u32 = 0xcafe_4a11;
/// Priorities of our clsact filters begin here; one per module.
const PRIORITY: u16 = 4_800;
const HANDLE: TcHandle = TcHandle::new(0, 1);

/// How a filter is attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// A link, pinned in the BPF file system (kernel 6.6 and newer).
    Tcx,
    /// A filter of the clsact queueing discipline.
    Clsact,
}

impl Way {
    /// The best one here.
    #[must_use]
    pub fn of_kernel() -> Self {
        if kernel::has_tcx(&kernel::release()) { Self::Tcx } else { Self::Clsact }
    }
}

/// One of the two programs: of what comes, and of what leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    In,
    Out,
}

impl Side {
    pub const BOTH: [Self; 2] = [Self::In, Self::Out];

    const fn program(self) -> &'static str {
        match self {
            Self::In => "stead_farm",
            Self::Out => "stead_farm_out",
        }
    }
    const fn hook(self) -> TcAttachType {
        match self {
            Self::In => TcAttachType::Ingress,
            Self::Out => TcAttachType::Egress,
        }
    }
}

pub fn classifier(ebpf: &mut Ebpf, side: Side) -> Result<&mut SchedClassifier, FilterError> {
    let name = side.program();
    let program = ebpf.program_mut(name);
    let program =
        program.ok_or_else(|| FilterError::kernel("find the packet filter's program", name, "it is missing"))?;
    program.try_into().map_err(|error: aya::programs::ProgramError| {
        FilterError::kernel("find the packet filter's program", name, error)
    })
}

pub fn attach(ebpf: &mut Ebpf, interface: &str, place: &Place, way: Way) -> Result<(), FilterError> {
    Side::BOTH.into_iter().try_for_each(|side| attach_side(ebpf, side, interface, place, way))
}

fn attach_side(ebpf: &mut Ebpf, side: Side, interface: &str, place: &Place, way: Way) -> Result<(), FilterError> {
    let refused = |error: Box<dyn std::error::Error + Send + Sync>| {
        FilterError::kernel("attach the packet filter", interface, error)
    };
    let program = classifier(ebpf, side)?;
    match way {
        Way::Tcx => {
            mounted(&place.dir)?;
            let pin = pin(side, interface, place);
            if let Some(left) = left_behind(&pin).map_err(|error| refused(Box::new(error)))? {
                // The program changes between two packets.
                let link =
                    SchedClassifierLink::try_from(FdLink::from(left)).map_err(|error| refused(Box::new(error)))?;
                match program.attach_to_link(link) {
                    // The pin holds it.
                    Ok(_) => return Ok(()),
                    // Of an interface that is gone: its link has lost its hold.
                    Err(_) => std::fs::remove_file(&pin).map_err(|error| refused(Box::new(error)))?,
                }
            }
            let order = TcAttachOptions::TcxOrder(LinkOrder::default());
            let id = program.attach_with_options(interface, side.hook(), order);
            let link = id.and_then(|id| program.take_link(id)).map_err(|error| refused(Box::new(error)))?;
            let link = FdLink::try_from(link).map_err(|error| refused(Box::new(error)))?;
            link.pin(&pin).map_err(|error| refused(Box::new(error)))?;
        }
        Way::Clsact => {
            match qdisc_add_clsact(interface) {
                Err(error) if !is_there_already(&error) => return Err(refused(Box::new(error))),
                _ => {}
            }
            let link = clsact_link(side, interface, place).map_err(|error| refused(Box::new(error)))?;
            let options = NlOptions { priority: PRIORITY + place.id, handle: HANDLE, classid: None };
            // Replaces, when there is one already.
            let id = program
                .attach_to_link(link)
                .or_else(|_| program.attach_with_options(interface, side.hook(), TcAttachOptions::Netlink(options)));
            let link = id.and_then(|id| program.take_link(id)).map_err(|error| refused(Box::new(error)))?;
            // It stays when this process ends.
            std::mem::forget(link);
        }
    }
    Ok(())
}

pub fn detach(interface: &str, place: &Place) -> Result<(), FilterError> {
    let refused = |error: Box<dyn std::error::Error + Send + Sync>| {
        FilterError::kernel("detach the packet filter", interface, error)
    };
    for side in Side::BOTH {
        if is_mounted(&place.dir)
            && let Some(left) = left_behind(&pin(side, interface, place)).map_err(|error| refused(Box::new(error)))?
        {
            left.unpin().map_err(|error| refused(Box::new(error)))?;
        }
        // An interface that is gone has no filter; neither has one where the kernel finds none.
        if let Ok(link) = clsact_link(side, interface, place) {
            let _absent = link.detach();
        }
    }
    Ok(())
}

fn is_there_already(error: &TcError) -> bool {
    match error {
        TcError::AlreadyAttached => true,
        TcError::NetlinkError(error) => error.raw_os_error() == Some(libc::EEXIST),
        _ => false,
    }
}

pub fn play(ebpf: &mut Ebpf, side: Side, frame: &[u8]) -> Result<(i32, Vec<u8>), FilterError> {
    let mut after = vec![0; frame.len() + 64];
    let mut options = TestRunOptions::new();
    options.data_in = Some(frame);
    options.data_out = Some(&mut after);
    let result = classifier(ebpf, side)?
        .test_run(options)
        .map_err(|error| FilterError::kernel("play a frame through the packet filter", "", error))?;
    after.truncate(result.data_size_out as usize);
    Ok((result.return_value.cast_signed(), after))
}

pub fn cost(ebpf: &mut Ebpf, frame: &[u8], runs: u32) -> Result<Duration, FilterError> {
    let mut options = TestRunOptions::new();
    options.data_in = Some(frame);
    options.repeat = runs;
    let played = classifier(ebpf, Side::In)?.test_run(options);
    played
        .map(|result| result.duration)
        .map_err(|error| FilterError::kernel("play a frame through the packet filter", "", error))
}

fn pin(side: Side, interface: &str, place: &Place) -> PathBuf {
    // Names of a BPF file system have no dots.
    let plain = |text: &str| text.replace('.', ":");
    let after = if side == Side::In { "" } else { "-out" };
    place.dir.join(format!("{}-{}{after}", plain(&place.name), plain(interface)))
}

fn left_behind(pin: &Path) -> Result<Option<PinnedLink>, LinkError> {
    match PinnedLink::from_pin(pin) {
        Ok(link) => Ok(Some(link)),
        Err(LinkError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn clsact_link(side: Side, interface: &str, place: &Place) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(interface, side.hook(), PRIORITY + place.id, HANDLE, None)
}

fn is_mounted(dir: &Path) -> bool {
    rustix::fs::statfs(dir).is_ok_and(|stat| stat.f_type as u32 == BPF_FS)
}

/// The kernel's file system on `dir`: what is in it lives as long as it is mounted.
fn mounted(dir: &Path) -> Result<(), FilterError> {
    if is_mounted(dir) {
        return Ok(());
    }
    let failed = |error: io::Error| FilterError::kernel("mount a BPF file system", dir.display(), error);
    std::fs::create_dir_all(dir).map_err(failed)?;
    rustix::mount::mount(
        "bpf",
        dir,
        "bpf",
        rustix::mount::MountFlags::NOSUID | rustix::mount::MountFlags::NODEV | rustix::mount::MountFlags::NOEXEC,
        None::<&CString>.map(CString::as_c_str),
    )
    .map_err(|error| failed(error.into()))
}
