/* Where the loader jumps to: hands the stack to Android's C library, which then calls `main`. */
#include "android.h"

int main(int count, char **arguments, char **environment);

/* What the C library may look up in the program: constructors and destructors. There are none;
 * newer versions read more of these fields than older ones. */
struct structors {
    void *fields[8];
};

__attribute__((noreturn)) void __libc_init(void *stack, void (*at_exit)(void),
                                           int (*start)(int, char **, char **),
                                           const struct structors *structors);

__attribute__((used, noreturn)) static void start_with(void *stack)
{
    static const struct structors none;
    __libc_init(stack, NULL, main, &none);
}

#if defined(__aarch64__)
__asm__(".globl _start\n"
        ".type _start, %function\n"
        "_start:\n"
        "  mov x29, #0\n"
        "  mov x30, #0\n"
        "  mov x0, sp\n"
        "  b start_with\n");
#elif defined(__x86_64__)
__asm__(".globl _start\n"
        ".type _start, @function\n"
        "_start:\n"
        "  xorl %ebp, %ebp\n"
        "  movq %rsp, %rdi\n"
        "  andq $-16, %rsp\n"
        "  callq start_with\n");
#else
#error "there is no start for this processor"
#endif

/* Says that this is a program for Android 7.0 (API level 24) or newer. */
__attribute__((used, section(".note.android.ident"), aligned(4))) static const struct {
    uint32_t name_size, value_size, type;
    char name[8];
    uint32_t api_level;
} android_note = {8, 4, 1, "Android", 24};
