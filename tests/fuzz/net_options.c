/*
 * Fuzz target: the text by which a user names a network, and changes it.
 */
#include "input.h"

#include "net/options.h"

#include <string.h>

static void check_options(const struct net_options *o)
{
    bool named = o->kind != NET_NONE && o->kind != NET_USER;

    check(o->kind < NET_KINDS && named == (o->target && *o->target));
    check(!o->mtu || (o->mtu >= 68 && o->mtu <= 65535));
    check(o->queues <= NET_QUEUES_MOST && o->forwards <= NET_FORWARDS_MOST);
    check(!o->hostname || (*o->hostname && strlen(o->hostname) <= NET_NAME_MOST));
    check(o->shape.loss <= 1000000 && o->shape.rate <= INT64_MAX);
    check(!o->has_mac || !(o->mac[0] & 1));
    for (unsigned i = 0; i < o->forwards; i++)
        check(o->forward[i].guest_port != 0);
    if (o->kind != NET_USER)
        return;
    check((o->host & o->mask) == o->network && (o->dns & o->mask) == o->network &&
          (o->dhcp & o->mask) == o->network);
    check(o->host != o->dns && o->dns != o->dhcp && o->host != o->dhcp);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct net_options o;
    struct net_shape shape = {.delay = 1}, before = shape;
    struct error err = {0};
    char *text = malloc(size + 1), *capture = NULL;

    check(text);
    memcpy(text, data, size);
    text[size] = '\0';
    if (net_options_parse(text, &o, &err) == 0) {
        check_options(&o);
        net_options_free(&o);
    } else {
        check(err.code > 0 && *err.text && !o.target && !o.forward && !o.capture);
    }
    if (net_options_change(text, &shape, &capture, &err) < 0)
        check(!capture && memcmp(&shape, &before, sizeof(shape)) == 0);
    free(capture);
    free(text);
    return 0;
}
