/* The program that the captures ran as /init: prints the firmware's event log and the SHA-256 PCRs, then
 * powers off. No C library, so that the whole initramfs is a few kilobytes and can lie beside the log.
 * gcc -Os -ffreestanding -fno-tree-loop-distribute-patterns -static -nostdlib -nostartfiles -fno-stack-protector
 *     -fno-asynchronous-unwind-tables -s -Wl,--build-id=none -Wl,-z,norelro -o init init.c */
/* A PCR file has 65 bytes, digits and line feed; so one read takes it. */
#define READ 0
#define WRITE 1
#define OPEN 2
#define CLOSE 3
#define MKDIR 83
#define MOUNT 165
#define REBOOT 169

static long call(long number, long a, long b, long c, long d, long e)
{
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return result;
}

static void print(const char *text)
{
    long length = 0;
    while (text[length])
        length++;
    call(WRITE, 1, (long)text, length, 0, 0);
}

static void hexadecimal(const unsigned char *bytes, long length)
{
    static const char digits[] = "0123456789abcdef";
    char line[132];
    long n = 0;
    for (long i = 0; i < length; i++) {
        line[n++] = digits[bytes[i] >> 4];
        line[n++] = digits[bytes[i] & 15];
    }
    line[n++] = '\n';
    call(WRITE, 1, (long)line, n, 0, 0);
}

static void dump(const char *path, const char *label, int text)
{
    static unsigned char bytes[65];
    long file = call(OPEN, (long)path, 0, 0, 0, 0), length;
    while (file >= 0 && (length = call(READ, file, (long)bytes, sizeof bytes, 0, 0)) > 0) {
        print(label);
        if (text)
            call(WRITE, 1, (long)bytes, length, 0, 0);
        else
            hexadecimal(bytes, length);
    }
    if (file >= 0)
        call(CLOSE, file, 0, 0, 0, 0);
}

void _start(void)
{
    char path[] = "/sys/class/tpm/tpm0/pcr-sha256/xx", label[] = "capture pcr xx ";
    call(MKDIR, (long)"/sys", 0755, 0, 0, 0);
    call(MOUNT, (long)"sysfs", (long)"/sys", (long)"sysfs", 0, 0);
    call(MOUNT, (long)"securityfs", (long)"/sys/kernel/security", (long)"securityfs", 0, 0);
    print("capture begin\n");
    for (int pcr = 0; pcr < 24; pcr++) {
        char *number = path + sizeof path - 3;
        char *of = label + sizeof label - 4;
        of[0] = '0' + pcr / 10;
        of[1] = '0' + pcr % 10;
        if (pcr < 10) {
            number[0] = '0' + pcr;
            number[1] = 0;
        } else {
            number[0] = of[0];
            number[1] = of[1];
        }
        dump(path, label, 1);
    }
    dump("/sys/kernel/security/tpm0/binary_bios_measurements", "capture log ", 0);
    print("capture end\n");
    call(REBOOT, 0xfee1dead, 672274793, 0x4321fedc, 0, 0);
    for (;;)
        ;
}
