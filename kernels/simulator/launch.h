// How the Python side finds a kernel and what it must know of its parameters.
#pragma once
#include "runtime.h"
#include <utility>

namespace cusim {

// kind: p pointer, i integer, f floating point, s struct. Of a pointer, `type` is what it points to.
struct Parameter {
  char kind;
  int size;
  const char* type;
  int type_size;
  bool is_const;
};

// "... type_text() [with T = unsigned char; ...]": Python takes the name out of it.
template <class T> constexpr const char* type_text() { return __PRETTY_FUNCTION__; }
template <class T> constexpr int size_of() {
  if constexpr (std::is_void_v<T>) return 1; else return (int)sizeof(T);
}
template <class T> constexpr Parameter describe() {
  using Pointee = std::remove_pointer_t<T>;
  using Bare = std::remove_cv_t<Pointee>;
  const char kind = std::is_pointer_v<T> ? 'p' : std::is_integral_v<T> ? 'i' : std::is_floating_point_v<T> ? 'f' : 's';
  return {kind, (int)sizeof(T), type_text<Bare>(), size_of<Bare>(), std::is_const_v<Pointee>};
}

// A kernel with its arguments behind pointers, as CUDA's own launch call has them.
using Invoke = void (*)(void (*)(), void**);
template <class... A> struct Signature {
  template <size_t... I> CUSIM_QUIET static void call(void (*f)(A...), void** a, std::index_sequence<I...>) {
    f(*(std::remove_reference_t<A>*)a[I]...);
  }
  static void invoke(void (*f)(), void** a) { call((void (*)(A...))f, a, std::index_sequence_for<A...>{}); }
  static const Parameter* parameters() {
    static constexpr Parameter all[] = {describe<A>()..., {}};
    return all;
  }
};

struct Kernel {
  const char* name;
  void (*function)();
  Invoke invoke;
  int count;
  const Parameter* parameters;
  int max_threads;    // of __launch_bounds__; 0: not given
  const char* names;  // of the parameters, with commas between
  Kernel* next;

  template <class... A> Kernel(const char* name, void (*f)(A...), int max_threads, const char* names)
      : name(name), function((void (*)())f), invoke(&Signature<A...>::invoke), count(sizeof...(A)),
        parameters(Signature<A...>::parameters()), max_threads(max_threads), names(names) {
    enter();
  }
  void enter();  // into the list that launches look through
};

constexpr int first_of(int threads, ...) { return threads; }  // of the arguments of __launch_bounds__

}  // namespace cusim
