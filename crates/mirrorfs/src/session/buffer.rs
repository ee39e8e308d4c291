//! A page-aligned buffer whose `WRITE` payload begins on a page, so that it could go to the disk uncopied.

use crate::abi::{InHeader, MAX_WRITE, WriteIn};
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

const PAGE: usize = 4096;
const HEAD: usize = size_of::<InHeader>() + size_of::<WriteIn>();
const SIZE: usize = PAGE + MAX_WRITE + PAGE;

/// See the module's page.
pub struct Buffer(NonNull<u8>);

// SAFETY: it owns its memory, like a Box<[u8]>.
unsafe impl Send for Buffer {}

impl Default for Buffer {
    fn default() -> Self {
        Self::new()
    }
}

impl Buffer {
    const LAYOUT: Layout = match Layout::from_size_align(SIZE, PAGE) {
        Ok(layout) => layout,
        Err(_) => panic!("a page is a power of two"),
    };

    /// Zeroed.
    #[must_use]
    pub fn new() -> Self {
        // SAFETY: the layout's size is not zero.
        let memory = unsafe { alloc_zeroed(Self::LAYOUT) };
        Self(NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(Self::LAYOUT)))
    }

    /// Takes all its memory now: the kernel could not copy a request into a page that is not there when this process is
    /// killed at that moment, and would answer it with an error by itself.
    pub fn populate(&mut self) {
        self.request().iter_mut().step_by(PAGE).for_each(|byte| {
            // SAFETY: a valid place for one byte; volatile, because writing what is there already has a purpose.
            unsafe { std::ptr::write_volatile(byte, 0) };
        });
    }

    /// Where a request is read into.
    pub fn request(&mut self) -> &mut [u8] {
        // SAFETY: PAGE - HEAD .. SIZE lies inside the zeroed allocation, borrowed as long as self.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_ptr().add(PAGE - HEAD), SIZE - (PAGE - HEAD)) }
    }

    /// A request of this length.
    #[must_use]
    pub fn bytes(&self, length: usize) -> &[u8] {
        assert!(length <= SIZE - (PAGE - HEAD), "no request is longer than its buffer");
        // SAFETY: inside the allocation (asserted), initialised, borrowed as long as self.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().add(PAGE - HEAD), length) }
    }

    /// Page-aligned space for a payload of `length` bytes (at most [`MAX_WRITE`]).
    pub fn payload(&mut self, length: usize) -> &mut [u8] {
        let length = length.min(MAX_WRITE);
        // SAFETY: PAGE .. PAGE + MAX_WRITE lies inside the allocation, initialised, borrowed as long as self.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_ptr().add(PAGE), length) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, freed once.
        unsafe { dealloc(self.0.as_ptr(), Self::LAYOUT) };
    }
}
