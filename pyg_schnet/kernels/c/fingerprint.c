/* A number that changes with any word of some memory: of weights that are changed behind autograd's back.
 *
 * Sums over blocks of products of the halves of words, each with a key of its place added (the family NH of
 * universal hashes): what two different sets of weights have in common by chance is one in 2^32. Keys repeat from
 * block to block, whose sums are then mixed one after the other.
 */
#include <stdint.h>
#include <string.h>

#define BLOCK 256

static uint64_t mixed(uint64_t sum) { return (sum ^ sum >> 29) * 0x9e3779b97f4a7c15ull; }

static uint64_t block(const char *memory, const uint64_t *keys, int64_t words) {
    uint64_t sum = 0;
    for (int64_t w = 0; w < words; w++) {
        uint64_t word;
        memcpy(&word, memory + 8 * w, 8);
        word += keys[w];
        sum += (word & 0xffffffffu) * (word >> 32);
    }
    return sum;
}

uint64_t fingerprint(const char *const *memory, const int64_t *bytes, int64_t count) {
    uint64_t keys[BLOCK], sum = 0;
    for (int64_t w = 0; w < BLOCK; w++) keys[w] = mixed(mixed(0x9e3779b97f4a7c15ull * (uint64_t)(w + 1)));
    for (int64_t k = 0; k < count; k++) {
        const int64_t words = bytes[k] / 8;
        sum = mixed(sum + (uint64_t)bytes[k]);
        for (int64_t w = 0; w < words; w += BLOCK)
            sum = mixed(sum) + block(memory[k] + 8 * w, keys, words - w < BLOCK ? words - w : BLOCK);
        for (int64_t b = 8 * words; b < bytes[k]; b++) sum = mixed(sum) + (unsigned char)memory[k][b];
    }
    return sum;
}
