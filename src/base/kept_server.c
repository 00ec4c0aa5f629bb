/*
 * Beginning to serve, in a kept process.
 */
#include "base/kept_server.h"

#include <errno.h>
#include <string.h>

int kept_server_begin(int link, const struct kept_hello *hello, uint64_t size,
                      int files[KEPT_FILES], void **memory, struct error *err)
{
    int ret = kept_link_send_hello(link, hello);

    if (ret == 0)
        ret = kept_link_receive_files(link, hello->number, files, KEPT_FILES);
    if (ret < 0)
        return ret == -EPIPE ? ret : error_set(err, -ret, "no start came: %s", strerror(-ret));
    ret = kept_memory_map(files[KEPT_MEMORY], size, memory, err);
    if (ret < 0)
        kept_memory_drop(size, files, NULL);
    return ret;
}

int kept_server_apologize(int link, const struct error *why, struct error *err)
{
    const struct kept_hello hello = kept_link_apology(why);

    kept_link_send_hello(link, &hello);
    return error_set(err, why->code, "%s", why->text);
}
