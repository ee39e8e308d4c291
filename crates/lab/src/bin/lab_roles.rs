//! For the tests of this crate: the hidden roles of a lab (users have them inside `stead`), and small helpers the
//! tests run inside hosts.

use std::ffi::CString;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["lab", lab::roles::SUPERVISOR] => lab::roles::supervisor(),
        ["lab", lab::roles::INIT] => lab::roles::init(),
        ["agent"] => agent(),
        ["listen", addr] => listen(addr),
        ["connect", addr] => connect(addr),
        ["stuck", dir] => stuck(dir),
        _ => {
            eprintln!("this program only plays roles in the tests of the lab; use `stead lab`");
            ExitCode::from(2)
        }
    }
}

/// A service that says who it is, listens where agents do, and waits.
fn agent() -> ExitCode {
    std::fs::create_dir_all("/run/stead").expect("own /run");
    // One that was killed leaves its name behind.
    let _ = std::fs::remove_file("/run/stead/agent.sock");
    let _listener = UnixListener::bind("/run/stead/agent.sock").expect("own /run");
    std::fs::write("/run/agent.pid", std::process::id().to_string()).expect("own /run");
    println!("agent started");
    loop {
        std::thread::park();
    }
}

/// Accepts one connection, greets, and keeps it open.
fn listen(addr: &str) -> ExitCode {
    let listener = TcpListener::bind(addr).expect("bind");
    println!("listening");
    let (mut stream, _) = listener.accept().expect("accept");
    stream.write_all(b"hello").expect("greet");
    loop {
        std::thread::park();
    }
}

/// Connects, takes the greeting, and tells how the connection ends.
fn connect(addr: &str) -> ExitCode {
    let mut stream = TcpStream::connect(addr).expect("connect");
    let mut greeting = [0; 5];
    stream.read_exact(&mut greeting).expect("greeting");
    println!("connected");
    println!("ended: {:?}", stream.read(&mut greeting));
    ExitCode::SUCCESS
}

/// Mounts a FUSE file system that takes a request and never answers, and asks it something itself: a process that
/// not even SIGKILL ends while the connection lives.
fn stuck(dir: &str) -> ExitCode {
    let mut device = std::fs::File::options().read(true).write(true).open("/dev/fuse").expect("/dev/fuse");
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
    let options = CString::new(options).expect("no NUL");
    std::fs::create_dir_all(dir).expect("mount point");
    rustix::mount::mount("stuck", dir, "fuse", rustix::mount::MountFlags::empty(), Some(options.as_c_str()))
        .expect("mount");
    std::thread::spawn(move || {
        let mut request = vec![0; 1 << 20];
        // FUSE_INIT comes first: 40 bytes of header, its unique number at 8; the answer says protocol 7.31.
        let n = device.read(&mut request).expect("init");
        assert!(n > 40 && request[4..8] == 26_u32.to_ne_bytes());
        let mut answer = vec![0; 16 + 64];
        answer[0..4].copy_from_slice(&80_u32.to_ne_bytes());
        answer[8..16].copy_from_slice(&request[8..16]);
        answer[16..20].copy_from_slice(&7_u32.to_ne_bytes());
        answer[20..24].copy_from_slice(&31_u32.to_ne_bytes());
        answer[36..40].copy_from_slice(&4096_u32.to_ne_bytes());
        device.write_all(&answer).expect("init answer");
        loop {
            // Taken and never answered.
            if device.read(&mut request).is_ok() {
                println!("taken");
            }
        }
    });
    let _ = std::fs::metadata(format!("{dir}/file"));
    ExitCode::SUCCESS
}
