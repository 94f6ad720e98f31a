# Process 1 of a container: reaps what is left to it (SIGCHLD ignored), and waits for ever. With an
# argument it ends at once, for those who only want to see a program run.
    .globl _start
    .text
_start:
    cmpq $1, (%rsp)
    jg 2f
    movl $13, %eax              # rt_sigaction(SIGCHLD, ..)
    movl $17, %edi
    leaq ignore(%rip), %rsi
    xorl %edx, %edx
    movl $8, %r10d
    syscall
1:  movl $34, %eax              # pause()
    syscall
    jmp 1b
2:  movl $60, %eax              # exit(0)
    xorl %edi, %edi
    syscall

    .section .rodata
    .balign 8
ignore:
    .quad 1, 0, 0, 0            # SIG_IGN, no flags, no restorer, no mask
    .section .note.GNU-stack,"",@progbits
