//! The loads. Each ends by time, so that a slow file system costs no longer than a fast one; streams end by amount, because
//! every byte of them is to be written once and synced.

use crate::latency::{Figures, Latencies};
use anyhow::{Context, bail};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where and how much.
pub struct Place {
    pub dir: PathBuf,
    pub lower: Option<PathBuf>,
    pub ms: u64,
    pub writers: usize,
}

const BLOCK: usize = 4096;
/// Size of the file whose blocks are written over.
const FILE_BYTES: u64 = 8 << 20;
/// Size of what is read.
const READ_BYTES: u64 = 64 << 20;
/// A streamed file.
const STREAM_BYTES: u64 = 64 << 20;
const SMALL_BYTES: usize = 1024;

/// Runs a load by its name.
pub fn run(load: &str, place: &Place) -> anyhow::Result<Figures> {
    fs::create_dir_all(&place.dir).with_context(|| format!("cannot make {}", place.dir.display()))?;
    match load {
        "fsync" => all(place, |p, n| overwrite(&p.join(format!("fsync{n}")), place.ms, 0, true)),
        "direct" => all(place, |p, n| overwrite(&p.join(format!("direct{n}")), place.ms, libc::O_DIRECT, false)),
        "stream" => stream(place, 1 << 20),
        "buffered" => stream(place, BLOCK),
        "cached" => read(place, false),
        "cold" => read(place, true),
        "small" => small(place),
        "tree" => tree(place),
        "ask" => ask(place),
        other => bail!("unknown load '{other}': fsync, direct, stream, buffered, cached, cold, small, tree, ask"),
    }
}

/// Each writer with its number, at the same time.
fn all(place: &Place, one: impl Fn(&Path, usize) -> io::Result<Latencies> + Sync) -> anyhow::Result<Figures> {
    let begin = Instant::now();
    let (all, took) = std::thread::scope(|scope| -> io::Result<_> {
        let one = &one;
        let writers: Vec<_> = (0..place.writers).map(|n| scope.spawn(move || one(&place.dir, n))).collect();
        let mut all = Latencies::default();
        for writer in writers {
            all.merge(writer.join().expect("no load panics")?);
        }
        Ok((all, begin.elapsed()))
    })?;
    Ok(all.figures(took))
}

/// A number sequence that is the same in every run.
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

/// A buffer for `O_DIRECT`.
#[repr(align(4096))]
struct Aligned([u8; BLOCK]);

/// Blocks of a file that is there already, at random places, each synced or written past the cache.
fn overwrite(path: &Path, ms: u64, flags: i32, sync: bool) -> io::Result<Latencies> {
    if !fs::metadata(path).is_ok_and(|m| m.len() == FILE_BYTES) {
        let file = File::create(path)?;
        (0..FILE_BYTES >> 20).try_for_each(|mib| file.write_all_at(&[3; 1 << 20], mib << 20))?;
        file.sync_all()?;
    }
    let file = OpenOptions::new().write(true).custom_flags(flags).open(path)?;
    let (mut seed, mut latencies, begin) = (7, Latencies::default(), Instant::now());
    let mut block = Aligned([5; BLOCK]);
    while begin.elapsed() < Duration::from_millis(ms) {
        let at = next(&mut seed);
        block.0[..8].copy_from_slice(&at.to_le_bytes());
        let one = Instant::now();
        file.write_all_at(&block.0, at % (FILE_BYTES / BLOCK as u64) * BLOCK as u64)?;
        if sync {
            file.sync_all()?;
        }
        latencies.add(one.elapsed());
    }
    Ok(latencies)
}

/// A new file from front to end, once, one sync at the end: MiB per second.
fn stream(place: &Place, piece: usize) -> anyhow::Result<Figures> {
    let file = File::create(place.dir.join("stream"))?;
    // Nothing that a clever device could squeeze together.
    let mut seed = 9;
    let bytes: Vec<u8> = (0..piece).map(|_| next(&mut seed) as u8).collect();
    let (begin, mut written) = (Instant::now(), 0u64);
    while written < STREAM_BYTES {
        file.write_all_at(&bytes, written)?;
        written += piece as u64;
    }
    file.sync_all()?;
    let took = begin.elapsed().as_secs_f64();
    drop(file);
    fs::remove_file(place.dir.join("stream"))?;
    Ok(Figures::from([("mib_per_s".into(), written as f64 / f64::from(1 << 20) / took)]))
}

/// Out of the page cache, on both sides of a mount.
fn cool(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    file.sync_all()?;
    // SAFETY: no pointers.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// 4 KiB at random places from the cache, or 128 KiB one after the other from the device.
fn read(place: &Place, cold: bool) -> anyhow::Result<Figures> {
    let path = place.dir.join("read");
    if !fs::metadata(&path).is_ok_and(|m| m.len() == READ_BYTES) {
        let file = File::create(&path)?;
        (0..READ_BYTES >> 20).try_for_each(|mib| file.write_all_at(&[4; 1 << 20], mib << 20))?;
        file.sync_all()?;
    }
    let piece = if cold { 128 << 10 } else { BLOCK };
    let mut buffer = vec![0; piece];
    if cold {
        cool(&path)?;
        place.lower.as_ref().map_or(Ok(()), |lower| cool(&lower.join("read")))?;
    }
    let file = File::open(&path)?;
    if !cold {
        (0..READ_BYTES / piece as u64).try_for_each(|n| file.read_exact_at(&mut buffer, n * piece as u64))?;
    }
    let pieces = READ_BYTES / piece as u64;
    let (mut seed, begin, mut done) = (11, Instant::now(), 0u64);
    while if cold { done < pieces } else { begin.elapsed() < Duration::from_millis(place.ms) } {
        for _ in 0..16 {
            let at = if cold { done } else { next(&mut seed) % pieces };
            file.read_exact_at(&mut buffer, at * piece as u64)?;
            done += 1;
        }
    }
    let took = begin.elapsed().as_secs_f64();
    let mib = (done * piece as u64) as f64 / f64::from(1 << 20);
    Ok(Figures::from([("per_s".into(), done as f64 / took), ("mib_per_s".into(), mib / took)]))
}

/// Small files: make and write, look and read, take away. Files per second of each.
fn small(place: &Place) -> anyhow::Result<Figures> {
    let dirs: Vec<PathBuf> = (0..place.writers).map(|n| place.dir.join(format!("small{n}"))).collect();
    dirs.iter().try_for_each(fs::create_dir_all)?;
    let phase = |work: &(dyn Fn(&Path, usize) -> io::Result<bool> + Sync)| -> io::Result<(Vec<usize>, f64)> {
        let begin = Instant::now();
        let counts = std::thread::scope(|scope| {
            let writers: Vec<_> = dirs
                .iter()
                .map(|dir| {
                    scope.spawn(move || -> io::Result<usize> {
                        let mut n = 0;
                        while work(&dir.join(format!("f{n}")), n)? {
                            n += 1;
                        }
                        Ok(n)
                    })
                })
                .collect();
            writers.into_iter().map(|w| w.join().expect("no load panics")).collect::<io::Result<Vec<_>>>()
        })?;
        let per_s = counts.iter().sum::<usize>() as f64 / begin.elapsed().as_secs_f64();
        Ok((counts, per_s))
    };
    let bytes = [6; SMALL_BYTES];
    let until = Instant::now() + Duration::from_millis(place.ms);
    let (counts, create) = phase(&|path, _| {
        if Instant::now() >= until {
            return Ok(false);
        }
        fs::write(path, bytes)?;
        Ok(true)
    })?;
    let least = counts.iter().copied().min().unwrap_or(0).max(1);
    let (_, stat) = phase(&|path, n| {
        if n >= least {
            return Ok(false);
        }
        fs::metadata(path)?;
        fs::read(path)?;
        Ok(true)
    })?;
    let (_, unlink) = phase(&|path, _| match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        other => other.map(|()| true),
    })?;
    dirs.iter().try_for_each(fs::remove_dir)?;
    Ok(Figures::from([("create".into(), create), ("stat_read".into(), stat), ("unlink".into(), unlink)]))
}

/// A question that no file system answers from a cache and that needs no work: what a request alone costs.
fn ask(place: &Place) -> anyhow::Result<Figures> {
    let path = place.dir.join("asked");
    let file = File::create(&path)?;
    let (mut latencies, begin) = (Latencies::default(), Instant::now());
    while begin.elapsed() < Duration::from_millis(place.ms) {
        let one = Instant::now();
        // SAFETY: a name with its NUL, and no buffer: only the size is asked for.
        unsafe { libc::fgetxattr(file.as_raw_fd(), c"trusted.stead.none".as_ptr(), std::ptr::null_mut(), 0) };
        latencies.add(one.elapsed());
    }
    fs::remove_file(path)?;
    Ok(latencies.figures(begin.elapsed()))
}

/// What `git clone` does to a directory: directories, files made under another name, written, made read-only
/// or given a time, renamed into place, looked at again. Files per second; it is taken away afterwards.
fn tree(place: &Place) -> anyhow::Result<Figures> {
    let root = place.dir.join("tree");
    fs::create_dir_all(&root)?;
    let (mut seed, begin, mut files) = (13, Instant::now(), 0u64);
    while begin.elapsed() < Duration::from_millis(place.ms) {
        let dir = root.join(format!("{:02x}", files / 16));
        fs::create_dir_all(&dir)?;
        for n in 0..16 {
            let (temporary, path) = (dir.join("tmp_obj"), dir.join(format!("object{n}")));
            let file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
            file.write_all_at(&vec![8; 512 + next(&mut seed) as usize % 7_680], 0)?;
            file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o444))?;
            drop(file);
            fs::rename(&temporary, &path)?;
            fs::symlink_metadata(&path)?;
            files += 1;
        }
    }
    let per_s = files as f64 / begin.elapsed().as_secs_f64();
    fs::remove_dir_all(&root)?;
    Ok(Figures::from([("per_s".into(), per_s)]))
}
