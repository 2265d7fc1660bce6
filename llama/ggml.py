"""What ggml's own headers have and llama-cpp-python's binding leaves out: tensors, operations, files' headers."""

import ctypes

import llama_cpp

from common.errors import UserError

LIBRARY = llama_cpp.llama_cpp._lib
DIMENSIONS = 4  # GGML_MAX_DIMS
OBJECT_BYTES = 32  # of `struct ggml_object`, which ggml counts as a tensor's overhead too


class Tensor(ctypes.Structure):
    """ggml_tensor of ggml.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * DIMENSIONS),  # elements, the innermost dimension first
        ("nb", ctypes.c_size_t * DIMENSIONS),  # bytes from one to the next
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
        ("extra", ctypes.c_void_p),
        ("padding", ctypes.c_char * 8),
    )


for _name, _result, *_arguments in (
    ("ggml_free", None, ctypes.c_void_p),
    ("ggml_get_tensor", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p),
    ("ggml_op_name", ctypes.c_char_p, ctypes.c_int),
    ("ggml_tensor_overhead", ctypes.c_size_t),
    ("ggml_type_size", ctypes.c_size_t, ctypes.c_int),
    ("ggml_backend_sched_set_eval_callback", None, *(ctypes.c_void_p,) * 3),
):
    _function = getattr(LIBRARY, _name)
    _function.restype, _function.argtypes = _result, _arguments

OPERATIONS = {LIBRARY.ggml_op_name(number).decode(): number for number in range(64)}  # by name, as far as needed


def check_layout() -> None:
    """Be sure that tensors lie in memory as Tensor says, before any is read.

    Raises:
        UserError: they do not, in the library that is installed.
    """
    theirs, ours = LIBRARY.ggml_tensor_overhead(), ctypes.sizeof(Tensor) + OBJECT_BYTES
    if theirs != ours:
        raise UserError(
            f"llama-cpp-python {llama_cpp.__version__} has tensors of {theirs} bytes, and {ours} are known: install "
            "the version that tunesmith asks for"
        )


def scheduler_of(context: "llama_cpp.llama_context_p") -> int:
    """Return what computes a context's graphs, by a method of C++ that llama.h does not have."""
    method = LIBRARY._ZNK13llama_context9get_schedEv
    method.restype, method.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
    scheduler: int = method(context)
    return scheduler
