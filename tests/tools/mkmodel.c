/* mkmodel.c - writes a synthetic Llama checkpoint of a given shape, Gaussian weights and all, as fast as the disk takes it: to
 * measure speed and memory at real sizes. It generates no sense. Same arguments, same bytes.
 *
 *     mkmodel [-d BF16|F16|F32] [-s SEED] [-S SHARD_BYTES] [-T THREADS] SHAPE DIRECTORY
 *
 * SHAPE is tiny, llama-1b, tinyllama-1.1b, llama-8b or a config.json. SHARD_BYTES (default 5G) takes the suffixes K, M and G.
 */
#include "mkmodel.h"

#include "bytes.h"
#include "pipeline.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PIECE_ELEMENTS (1u << 20)
#define CONFIG_LIMIT_BYTES (1u << 20)
#define NAME_BYTES 64
#define PATH_BYTES 4096

static const struct shape {
    const char *name;
    uint32_t hidden, layers, intermediate, vocab, heads, kv_heads, positions;
    bool tied;
    const char *rope; /* members of config.json */
} shapes[] = {
    {"tiny", 64, 3, 176, 320, 4, 2, 512, false, "\"rope_theta\":10000.0"},
    {"tinyllama-1.1b", 2048, 22, 5632, 32000, 32, 4, 2048, false, "\"rope_theta\":10000.0"},
    {"llama-1b", 2048, 16, 8192, 128256, 32, 8, 131072, true,
     "\"rope_theta\":500000.0,\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":32.0,\"low_freq_factor\":1.0,"
     "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192}"},
    {"llama-8b", 4096, 32, 14336, 128256, 32, 8, 131072, false,
     "\"rope_theta\":500000.0,\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"
     "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192}"},
};

static const char *const element_names[] = {[MODEL_BF16] = "BF16", [MODEL_F16] = "F16", [MODEL_F32] = "F32"};
static const unsigned element_sizes[] = {[MODEL_BF16] = 2, [MODEL_F16] = 2, [MODEL_F32] = 4};

struct tensor {
    char name[NAME_BYTES];
    uint64_t row_count;
    uint64_t column_count; /* 0: a vector */
    uint64_t element_count;
    uint64_t offset; /* bytes from the start of its file's data */
    uint32_t file_index;
    struct gauss_sequence sequence;
};

struct making {
    const char *shape_name;
    const char *directory;
    enum model_element element;
    uint64_t seed;
    uint64_t shard_bytes;
    unsigned thread_count;
    char config_text[CONFIG_LIMIT_BYTES];
    struct cllm_config config;
    struct gauss_table gauss;
    struct tensor *tensors;
    size_t tensor_count;
    uint32_t file_count;
    int *files;             /* descriptors */
    uint64_t *header_bytes; /* of each file, with the length field */
    uint64_t total_bytes;
    size_t next_tensor; /* pieces handed out so far */
    uint64_t next_element;
};

/* One piece of a tensor. */
struct job {
    const struct making *making;
    const struct tensor *tensor;
    uint64_t first;
    size_t count;
    uint8_t bytes[PIECE_ELEMENTS * 4];
};

static bool fail_errno(const char *path)
{
    fprintf(stderr, "mkmodel: %s: %s\n", path, strerror(errno));
    return false;
}

/* ---------------------------------------------------------------------------------------------------- configuration */

static void print_preset(struct making *making, const struct shape *shape)
{
    snprintf(making->config_text, sizeof making->config_text,
             "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":%u,\"num_hidden_layers\":%u,\n"
             "\"intermediate_size\":%u,\"vocab_size\":%u,\"num_attention_heads\":%u,\"num_key_value_heads\":%u,\n"
             "\"max_position_embeddings\":%u,\"rms_norm_eps\":1e-05,\"hidden_act\":\"silu\",\"initializer_range\":0.02,\n"
             "\"tie_word_embeddings\":%s,\"bos_token_id\":0,\"eos_token_id\":1,\"torch_dtype\":\"%s\",%s}\n",
             shape->hidden, shape->layers, shape->intermediate, shape->vocab, shape->heads, shape->kv_heads, shape->positions,
             shape->tied ? "true" : "false",
             making->element == MODEL_BF16  ? "bfloat16"
             : making->element == MODEL_F16 ? "float16"
                                            : "float32",
             shape->rope);
}

static bool read_config(struct making *making)
{
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        if (strcmp(making->shape_name, shapes[i].name) == 0) print_preset(making, &shapes[i]);
    }
    if (!making->config_text[0]) {
        FILE *file = fopen(making->shape_name, "rbe");
        if (!file) return fail_errno(making->shape_name);
        if (fread(making->config_text, 1, CONFIG_LIMIT_BYTES - 1, file) == 0) making->config_text[0] = 0;
        fclose(file);
    }
    struct cllm_error err;
    const struct cllm_json_text text = {making->config_text, strlen(making->config_text)};
    if (cllm_config_parse(text, (struct cllm_json_text){0}, &making->config, &err) == CLLM_OK) return true;
    fprintf(stderr, "mkmodel: %s: %s\n", making->shape_name, err.message);
    return false;
}

/* ----------------------------------------------------------------------------------------------------------- tensors */

/* Standard deviations as GPT-2 and its successors begin: what adds to the residual stream is smaller, the deeper the model. */
static void add_tensor(struct making *making, const char *name, uint64_t row_count, uint64_t column_count)
{
    struct tensor *tensor = &making->tensors[making->tensor_count++];
    const bool adds = strstr(name, "o_proj.weight") || strstr(name, "down_proj.weight");
    const bool is_norm = strstr(name, "norm.weight") != NULL;
    const double depth = adds ? 2.0 * making->config.layer_count : 1;
    *tensor = (struct tensor){.row_count = row_count, .column_count = column_count};
    snprintf(tensor->name, sizeof tensor->name, "%s", name);
    tensor->element_count = row_count * (column_count ? column_count : 1);
    tensor->sequence = (struct gauss_sequence){
        .key = gauss_key(making->seed, name),
        .mean = is_norm ? 1 : 0,
        .sigma = is_norm ? 0.1f : (float)(0.02 / sqrt(depth)),
        .element = making->element,
    };
}

static void add_layer(struct making *making, uint32_t layer)
{
    const struct cllm_config *c = &making->config;
    const uint64_t query = (uint64_t)c->head_count * c->head_dim, key = (uint64_t)c->kv_head_count * c->head_dim;
    const struct {
        const char *name;
        uint64_t row_count, column_count;
        bool wanted;
    } parts[] = {
        {"input_layernorm.weight", c->hidden_size, 0, true},
        {"self_attn.q_proj.weight", query, c->hidden_size, true},
        {"self_attn.k_proj.weight", key, c->hidden_size, true},
        {"self_attn.v_proj.weight", key, c->hidden_size, true},
        {"self_attn.o_proj.weight", c->hidden_size, query, true},
        {"self_attn.q_proj.bias", query, 0, c->qkv_bias},
        {"self_attn.k_proj.bias", key, 0, c->qkv_bias},
        {"self_attn.v_proj.bias", key, 0, c->qkv_bias},
        {"self_attn.o_proj.bias", c->hidden_size, 0, c->attention_output_bias},
        {"post_attention_layernorm.weight", c->hidden_size, 0, true},
        {"mlp.gate_proj.weight", c->intermediate_size, c->hidden_size, true},
        {"mlp.up_proj.weight", c->intermediate_size, c->hidden_size, true},
        {"mlp.down_proj.weight", c->hidden_size, c->intermediate_size, true},
        {"mlp.gate_proj.bias", c->intermediate_size, 0, c->mlp_bias},
        {"mlp.up_proj.bias", c->intermediate_size, 0, c->mlp_bias},
        {"mlp.down_proj.bias", c->hidden_size, 0, c->mlp_bias},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char name[NAME_BYTES];
        snprintf(name, sizeof name, "model.layers.%u.%s", layer, parts[i].name);
        if (parts[i].wanted) add_tensor(making, name, parts[i].row_count, parts[i].column_count);
    }
}

/* Tensors in the order of the model, each in the first file that has room. */
static bool plan_tensors(struct making *making)
{
    const struct cllm_config *c = &making->config;
    making->tensors = calloc((size_t)c->layer_count * 16 + 3, sizeof *making->tensors);
    if (!making->tensors) return fail_errno("memory");
    add_tensor(making, "model.embed_tokens.weight", c->vocab_size, c->hidden_size);
    for (uint32_t layer = 0; layer < c->layer_count; layer++) add_layer(making, layer);
    add_tensor(making, "model.norm.weight", c->hidden_size, 0);
    if (!c->tied_head) add_tensor(making, "lm_head.weight", c->vocab_size, c->hidden_size);
    uint64_t end = 0;
    for (size_t i = 0; i < making->tensor_count; i++) {
        struct tensor *tensor = &making->tensors[i];
        const uint64_t bytes = tensor->element_count * element_sizes[making->element];
        if (end > 0 && end + bytes > making->shard_bytes) {
            making->file_count++;
            end = 0;
        }
        tensor->file_index = making->file_count;
        tensor->offset = end;
        end += bytes;
        making->total_bytes += bytes;
    }
    making->file_count++;
    return true;
}

/* ------------------------------------------------------------------------------------------------------------- files */

static void weight_file_name(const struct making *making, uint32_t file_index, char name[NAME_BYTES])
{
    if (making->file_count == 1) snprintf(name, NAME_BYTES, "model.safetensors");
    else snprintf(name, NAME_BYTES, "model-%05u-of-%05u.safetensors", file_index + 1, making->file_count);
}

static bool path_of(const struct making *making, const char *name, char path[PATH_BYTES])
{
    return snprintf(path, PATH_BYTES, "%s/%s", making->directory, name) < PATH_BYTES;
}

static void print_tensor(const struct making *making, const struct tensor *tensor, FILE *header)
{
    const uint64_t bytes = tensor->element_count * element_sizes[making->element];
    fprintf(header, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%llu", tensor->name, element_names[making->element],
            (unsigned long long)tensor->row_count);
    if (tensor->column_count) fprintf(header, ",%llu", (unsigned long long)tensor->column_count);
    fprintf(header, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)tensor->offset,
            (unsigned long long)(tensor->offset + bytes));
}

/* Opens a file of weights and writes its header. */
static bool start_weight_file(struct making *making, uint32_t file_index)
{
    char name[NAME_BYTES], path[PATH_BYTES], *text = NULL;
    uint8_t length[8];
    size_t text_bytes = 0;
    weight_file_name(making, file_index, name);
    FILE *header = open_memstream(&text, &text_bytes);
    if (!header) return fail_errno("memory");
    fprintf(header, "{\"__metadata__\":{\"format\":\"pt\",\"synthetic\":\"mkmodel, seed %llu\"}",
            (unsigned long long)making->seed);
    for (size_t i = 0; i < making->tensor_count; i++) {
        if (making->tensors[i].file_index == file_index) print_tensor(making, &making->tensors[i], header);
    }
    fputc('}', header);
    while (ftell(header) % 8 != 0) fputc(' ', header);
    if (fclose(header) != 0 || !path_of(making, name, path)) return fail_errno(name);
    const int file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    cllm_store_le64(length, text_bytes);
    making->files[file_index] = file;
    making->header_bytes[file_index] = 8 + text_bytes;
    const bool written = file >= 0 && pwrite(file, length, 8, 0) == 8 && pwrite(file, text, text_bytes, 8) == (ssize_t)text_bytes;
    free(text);
    return written || fail_errno(path);
}

static bool write_shard_index(const struct making *making, FILE *file)
{
    char name[NAME_BYTES];
    fprintf(file, "{\"metadata\":{\"total_size\":%llu},\"weight_map\":{", (unsigned long long)making->total_bytes);
    for (size_t i = 0; i < making->tensor_count; i++) {
        weight_file_name(making, making->tensors[i].file_index, name);
        fprintf(file, "%s\"%s\":\"%s\"", i ? "," : "", making->tensors[i].name, name);
    }
    fprintf(file, "}}\n");
    return !ferror(file);
}

static bool write_vocabulary(const struct making *making, FILE *file)
{
    return write_tokenizer(file, making->config.vocab_size);
}

static bool write_config(const struct making *making, FILE *file)
{
    return fputs(making->config_text, file) >= 0;
}

static bool write_generation_config(const struct making *making, FILE *file)
{
    (void)making;
    return fputs("{\"bos_token_id\":0,\"eos_token_id\":1}\n", file) >= 0;
}

static bool write_text(const struct making *making, const char *name, bool (*print)(const struct making *, FILE *))
{
    char path[PATH_BYTES];
    FILE *file = path_of(making, name, path) ? fopen(path, "wbe") : NULL;
    bool written = file && print(making, file);
    if (file && fclose(file) != 0) written = false;
    return written || fail_errno(name);
}

static bool write_texts(const struct making *making)
{
    if (making->file_count > 1 && !write_text(making, "model.safetensors.index.json", write_shard_index)) return false;
    if (!write_text(making, "config.json", write_config)) return false;
    if (!write_text(making, "generation_config.json", write_generation_config)) return false;
    if (making->config.vocab_size >= TOKENIZER_VOCAB_MIN) return write_text(making, "tokenizer.json", write_vocabulary);
    fprintf(stderr, "mkmodel: no tokenizer.json: a vocabulary of %u is too small for one\n", making->config.vocab_size);
    return true;
}

/* ----------------------------------------------------------------------------------------------------------- weights */

static enum cllm_status prepare_piece(void *user, void *job_memory, bool *more_out, struct cllm_error *err)
{
    (void)err;
    struct making *making = user;
    struct job *job = job_memory;
    *more_out = making->next_tensor < making->tensor_count;
    if (!*more_out) return CLLM_OK;
    const struct tensor *tensor = &making->tensors[making->next_tensor];
    const uint64_t left = tensor->element_count - making->next_element;
    job->making = making;
    job->tensor = tensor;
    job->first = making->next_element;
    job->count = left < PIECE_ELEMENTS ? (size_t)left : PIECE_ELEMENTS;
    making->next_element += job->count;
    if (making->next_element == tensor->element_count) {
        making->next_element = 0;
        making->next_tensor++;
    }
    return CLLM_OK;
}

static enum cllm_status work_on_piece(void *user, void *job_memory, struct cllm_error *err)
{
    (void)user;
    struct job *job = job_memory;
    const struct making *making = job->making;
    const size_t element_bytes = element_sizes[making->element], bytes = job->count * element_bytes;
    const uint64_t at = making->header_bytes[job->tensor->file_index] + job->tensor->offset + job->first * element_bytes;
    gauss_fill(&making->gauss, &job->tensor->sequence, job->first, job->count, job->bytes);
    for (size_t done = 0; done < bytes;) {
        const ssize_t count = pwrite(making->files[job->tensor->file_index], job->bytes + done, bytes - done, (off_t)(at + done));
        if (count <= 0) return cllm_fail(err, CLLM_E_IO, CLLM_NO_OFFSET, "cannot write the weights: %s", strerror(errno));
        done += (size_t)count;
    }
    return CLLM_OK;
}

static bool write_weights(struct making *making)
{
    const unsigned job_count = cllm_pipeline_job_count(making->thread_count);
    struct job *jobs = calloc(job_count, sizeof *jobs);
    void **pointers = calloc(job_count, sizeof *pointers);
    struct cllm_error err = {0};
    const struct cllm_pipeline pipeline = {making, prepare_piece, work_on_piece, NULL};
    enum cllm_status status = jobs && pointers ? CLLM_OK : cllm_fail(&err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory");
    for (unsigned i = 0; !status && i < job_count; i++) pointers[i] = &jobs[i];
    if (!status) status = cllm_pipeline_run(&pipeline, pointers, job_count, making->thread_count, &err);
    for (uint32_t i = 0; i < making->file_count; i++) {
        if (close(making->files[i]) != 0 && !status) status = cllm_fail(&err, CLLM_E_IO, CLLM_NO_OFFSET, "cannot write");
    }
    free(pointers);
    free(jobs);
    if (status) fprintf(stderr, "mkmodel: %s\n", err.message);
    return status == CLLM_OK;
}

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static bool make(struct making *making)
{
    const double start = seconds_now();
    if (!read_config(making) || !plan_tensors(making)) return false;
    if (mkdir(making->directory, 0777) != 0 && errno != EEXIST) return fail_errno(making->directory);
    making->files = calloc(making->file_count, sizeof *making->files);
    making->header_bytes = calloc(making->file_count, sizeof *making->header_bytes);
    if (!making->files || !making->header_bytes) return fail_errno("memory");
    for (uint32_t i = 0; i < making->file_count; i++) {
        if (!start_weight_file(making, i)) return false;
    }
    gauss_prepare(&making->gauss);
    if (!write_texts(making) || !write_weights(making)) return false;
    const double seconds = seconds_now() - start;
    printf("synthetic checkpoint of shape %s: %zu %s tensors, %.3f GB in %u files, %.2f s, %.2f GB/s\n", making->shape_name,
           making->tensor_count, element_names[making->element], (double)making->total_bytes * 1e-9, making->file_count, seconds,
           (double)making->total_bytes * 1e-9 / seconds);
    return true;
}

/* --------------------------------------------------------------------------------------------------------- arguments */

static int usage(void)
{
    fprintf(stderr, "usage: mkmodel [-d BF16|F16|F32] [-s SEED] [-S SHARD_BYTES] [-T THREADS] SHAPE DIRECTORY\n"
                    "SHAPE is");
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) fprintf(stderr, " %s,", shapes[i].name);
    fprintf(stderr, " or a config.json\n");
    return 2;
}

static uint64_t parse_size(const char *text)
{
    static const char suffixes[] = "KMG";
    char *end;
    uint64_t value = strtoull(text, &end, 10);
    const char *suffix = *end ? strchr(suffixes, *end) : NULL;
    if (suffix) value <<= 10 * (suffix - suffixes + 1);
    return end == text || (*end && (!suffix || end[1])) ? 0 : value;
}

static bool parse_element(const char *name, enum model_element *element_out)
{
    for (int i = 0; i < 3; i++) {
        *element_out = (enum model_element)i;
        if (strcmp(name, element_names[i]) == 0) return true;
    }
    return false;
}

int main(int argc, char **argv)
{
    static struct making making = {.seed = 1, .shard_bytes = UINT64_C(5) << 30};
    for (int option; (option = getopt(argc, argv, "d:s:S:T:")) != -1;) {
        switch (option) {
        case 'd':
            if (!parse_element(optarg, &making.element)) return usage();
            break;
        case 's': making.seed = strtoull(optarg, NULL, 10); break;
        case 'S': making.shard_bytes = parse_size(optarg); break;
        case 'T': making.thread_count = (unsigned)strtoul(optarg, NULL, 10); break;
        default: return usage();
        }
    }
    if (argc - optind != 2 || making.shard_bytes == 0) return usage();
    making.shape_name = argv[optind];
    making.directory = argv[optind + 1];
    const bool made = make(&making);
    free(making.tensors);
    free(making.files);
    free(making.header_bytes);
    return made ? 0 : 1;
}
