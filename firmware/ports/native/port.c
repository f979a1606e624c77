/* SPDX-License-Identifier: Apache-2.0 */
/* The firmware as a process of the host: its line is a pseudo-terminal, whose path is the first line on stdout; its flash
 * for adapters is the file that LORA_MCU_FLASH names, or memory that outlives a reset and not the process. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "lmcu_board.h"
#include "lmcu_port.h"

#define PTY_VARIABLE "LMCU_PTY" /* "master slave": descriptors that a reset hands on to the next boot */
#define FLASH_VARIABLE "LORA_MCU_FLASH"
#define FLASH_HANDED_ON "LMCU_FLASH_DESCRIPTOR"
#define CAUSE_VARIABLE "LMCU_RESET_CAUSE"
#define IDLE_MS 100
#define WRITE_MS 1000 /* a reader that takes nothing for so long is a dead line */

typedef struct {
    int master, slave; /* the slave stays open here, so that a reader may come and go without an error */
    int flash;
    uint32_t rx_head, rx_tail;
    uint32_t boot_id, reset_cause;
    uint64_t start_ns;
} lmcu_port_fields_t;

typedef union {
    lmcu_port_fields_t fields;
    uint64_t bytes[LMCU_PORT_BYTES / 8];
} lmcu_port_state_t;

lmcu_port_state_t lmcu_port_state LMCU_ALIGNED(8);
uint8_t lmcu_rx_ring[LMCU_RX_RING_BYTES] LMCU_ALIGNED(8);

typedef char lmcu_port_state_has_its_size[sizeof(lmcu_port_state_t) == LMCU_PORT_BYTES ? 1 : -1];
typedef char lmcu_ring_is_a_power_of_two[(LMCU_RX_RING_BYTES & (LMCU_RX_RING_BYTES - 1)) == 0 ? 1 : -1];

static void fail(const char *what)
{
    fprintf(stderr, "native port: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Raw in both directions: what the firmware writes must never come back as an echo. */
static void make_raw(int slave)
{
    struct termios settings;
    if (tcgetattr(slave, &settings) != 0) {
        fail("tcgetattr");
    }
    settings.c_iflag = 0;
    settings.c_oflag = 0;
    settings.c_lflag = 0;
    settings.c_cflag = CS8 | CREAD | CLOCAL;
    settings.c_cc[VMIN] = 1;
    settings.c_cc[VTIME] = 0;
    if (tcsetattr(slave, TCSANOW, &settings) != 0) {
        fail("tcsetattr");
    }
}

static void open_line(lmcu_port_fields_t *port)
{
    port->master = posix_openpt(O_RDWR | O_NOCTTY);
    if (port->master < 0 || grantpt(port->master) != 0 || unlockpt(port->master) != 0) {
        fail("posix_openpt");
    }
    const char *path = ptsname(port->master);
    port->slave = path == NULL ? -1 : open(path, O_RDWR | O_NOCTTY);
    if (port->slave < 0) {
        fail("opening the slave");
    }
    make_raw(port->slave);
    if (fcntl(port->master, F_SETFL, O_NONBLOCK) != 0) {
        fail("fcntl");
    }
    printf("%s\n", path);
    fflush(stdout);
}

static uint32_t random_id(void)
{
    uint32_t id = 0;
    const int file = open("/dev/urandom", O_RDONLY);
    if (file < 0 || read(file, &id, sizeof id) != (ssize_t)sizeof id) {
        fail("/dev/urandom");
    }
    close(file);
    return id | 1u;
}

/* A file that is too short is filled up with erased bytes. */
static void open_flash(lmcu_port_fields_t *port)
{
    const char *path = getenv(FLASH_VARIABLE);
    const char *inherited = getenv(FLASH_HANDED_ON);
    struct stat status;
    uint8_t blank[1024];
    if (inherited != NULL && sscanf(inherited, "%d", &port->flash) == 1) {
        return;
    }
    port->flash = path == NULL ? memfd_create("flash", 0) : open(path, O_RDWR | O_CREAT, 0644);
    if (port->flash < 0 || fstat(port->flash, &status) != 0) {
        fail(path == NULL ? "flash" : path);
    }
    memset(blank, 0xff, sizeof blank);
    for (off_t at = status.st_size; at < 2 * (off_t)LMCU_BOARD_FLASH_HALF; at += (off_t)sizeof blank) {
        const size_t left = (size_t)(2 * (off_t)LMCU_BOARD_FLASH_HALF - at);
        if (pwrite(port->flash, blank, left < sizeof blank ? left : sizeof blank, at) < 0) {
            fail("filling the flash");
        }
    }
}

lmcu_flash_t lmcu_port_flash(void)
{
    return (lmcu_flash_t){LMCU_BOARD_FLASH_HALF, LMCU_BOARD_FLASH_UNIT};
}

bool lmcu_port_flash_read(uint32_t half, uint32_t offset, void *to, uint32_t count)
{
    const off_t at = (off_t)half * LMCU_BOARD_FLASH_HALF + offset;
    return pread(lmcu_port_state.fields.flash, to, count, at) == (ssize_t)count;
}

uint32_t lmcu_port_flash_erase_ms(void)
{
    return LMCU_BOARD_FLASH_ERASE_MS;
}

bool lmcu_port_flash_erase(uint32_t half)
{
    uint8_t blank[1024];
    memset(blank, 0xff, sizeof blank);
    for (uint32_t at = 0; at < LMCU_BOARD_FLASH_HALF; at += sizeof blank) {
        const off_t place = (off_t)half * LMCU_BOARD_FLASH_HALF + at;
        if (pwrite(lmcu_port_state.fields.flash, blank, sizeof blank, place) != (ssize_t)sizeof blank) {
            return false;
        }
    }
    return true;
}

/* As flash does it: bits can only be cleared. */
bool lmcu_port_flash_program(uint32_t half, uint32_t offset, const uint8_t *unit)
{
    uint8_t cells[LMCU_BOARD_FLASH_UNIT];
    const off_t at = (off_t)half * LMCU_BOARD_FLASH_HALF + offset;
    if (!lmcu_port_flash_read(half, offset, cells, LMCU_BOARD_FLASH_UNIT)) {
        return false;
    }
    for (uint32_t i = 0; i < LMCU_BOARD_FLASH_UNIT; i++) {
        cells[i] &= unit[i];
    }
    return pwrite(lmcu_port_state.fields.flash, cells, LMCU_BOARD_FLASH_UNIT, at) == (ssize_t)LMCU_BOARD_FLASH_UNIT &&
           memcmp(cells, unit, LMCU_BOARD_FLASH_UNIT) == 0;
}

/* A reset is the same program started again on the same line. */
static void restart(uint32_t cause)
{
    char descriptors[32];
    snprintf(descriptors, sizeof descriptors, "%d %d", lmcu_port_state.fields.master, lmcu_port_state.fields.slave);
    setenv(PTY_VARIABLE, descriptors, 1);
    snprintf(descriptors, sizeof descriptors, "%d", lmcu_port_state.fields.flash);
    setenv(FLASH_HANDED_ON, descriptors, 1);
    snprintf(descriptors, sizeof descriptors, "%u", cause);
    setenv(CAUSE_VARIABLE, descriptors, 1);
    execl("/proc/self/exe", "firmware", (char *)NULL);
    fail("restart");
}

/* ---- watchdog: a timer of the process's own computing time, so that a stopped or swapped out process is no hung one ---- */

static volatile sig_atomic_t fed;

static void watch(uint32_t ms)
{
    const struct timeval period = {(time_t)(ms / 1000u), (suseconds_t)(ms % 1000u * 1000u)};
    const struct itimerval timer = {period, period};
    setitimer(ITIMER_VIRTUAL, &timer, NULL);
}

/* A period without food is a hang. Signals must not stay blocked in the program that starts anew. */
static void on_watchdog(int signal_number)
{
    (void)signal_number;
    if (!fed) {
        restart(LMCU_RESET_WATCHDOG);
    }
    fed = 0;
}

uint32_t lmcu_port_watchdog_start(uint32_t ms)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_watchdog;
    action.sa_flags = SA_NODEFER | SA_RESTART;
    fed = 1;
    if (sigaction(SIGVTALRM, &action, NULL) != 0) {
        fail("sigaction");
    }
    watch(ms);
    return ms;
}

void lmcu_port_watchdog_feed(void)
{
    fed = 1;
}

uint32_t lmcu_port_reset_cause(void)
{
    return lmcu_port_state.fields.reset_cause;
}

void lmcu_port_init(void)
{
    lmcu_port_fields_t *port = &lmcu_port_state.fields;
    const char *inherited = getenv(PTY_VARIABLE);
    const char *cause = getenv(CAUSE_VARIABLE);
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* no orphan may hold a port */
    watch(0);                         /* outlives a reset */
    port->reset_cause = cause != NULL ? (uint32_t)strtoul(cause, NULL, 10) : LMCU_RESET_POWER;
    if (inherited == NULL || sscanf(inherited, "%d %d", &port->master, &port->slave) != 2) {
        open_line(port);
    }
    open_flash(port);
    port->boot_id = random_id();
    port->start_ns = now_ns();
}

/* Moves what the line holds into the ring, in at most two runs. */
static void fill_ring(lmcu_port_fields_t *port)
{
    for (int run = 0; run < 2; run++) {
        const uint32_t space = LMCU_RX_RING_BYTES - (port->rx_head - port->rx_tail);
        const uint32_t at = port->rx_head % LMCU_RX_RING_BYTES;
        const uint32_t straight = LMCU_RX_RING_BYTES - at;
        const ssize_t got = read(port->master, lmcu_rx_ring + at, space < straight ? space : straight);
        if (got <= 0) {
            return;
        }
        port->rx_head += (uint32_t)got;
    }
}

uint32_t lmcu_port_read(uint8_t *buffer, uint32_t capacity)
{
    lmcu_port_fields_t *port = &lmcu_port_state.fields;
    uint32_t count = 0;
    fill_ring(port);
    while (count < capacity && port->rx_tail != port->rx_head) {
        buffer[count++] = lmcu_rx_ring[port->rx_tail++ % LMCU_RX_RING_BYTES];
    }
    return count;
}

void lmcu_port_write(const uint8_t *bytes, uint32_t count)
{
    struct pollfd line = {.fd = lmcu_port_state.fields.master, .events = POLLOUT};
    while (count > 0) {
        const ssize_t sent = write(line.fd, bytes, count);
        if (sent > 0) {
            bytes += sent;
            count -= (uint32_t)sent;
        } else if ((errno != EAGAIN && errno != EINTR) || poll(&line, 1, WRITE_MS) == 0) {
            return;
        }
    }
}

void lmcu_port_idle(void)
{
    struct pollfd line = {.fd = lmcu_port_state.fields.master, .events = POLLIN};
    if (lmcu_port_state.fields.rx_tail == lmcu_port_state.fields.rx_head) {
        (void)poll(&line, 1, IDLE_MS);
    }
}

/* What the ring cannot take waits in the pseudo-terminal; the ring is what is promised. */
uint32_t lmcu_port_rx_bytes(void)
{
    return LMCU_RX_RING_BYTES;
}

/* A pseudo-terminal has no speed: any will do. */
uint32_t lmcu_port_baud_near(uint32_t baud)
{
    return baud;
}

void lmcu_port_baud_set(uint32_t baud)
{
    (void)baud;
}

uint64_t lmcu_port_ticks(void)
{
    return now_ns() - lmcu_port_state.fields.start_ns;
}

uint32_t lmcu_port_clock_hz(void)
{
    return LMCU_BOARD_CLOCK_HZ;
}

uint32_t lmcu_port_clock_source(void)
{
    return 0;
}

uint32_t lmcu_port_boot_id(void)
{
    return lmcu_port_state.fields.boot_id;
}

void lmcu_port_reset(void)
{
    restart(LMCU_RESET_REQUEST);
}

uint32_t lmcu_port_stack_used(void)
{
    return 0; /* the host's stack, not ours */
}

int main(void)
{
    return lmcu_main();
}
