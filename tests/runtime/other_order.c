/* Matrix products whose sums run in another order than a BLAS's, and in one that depends on the
   shapes: a sum is split into interleaved parts, more of them for few rows, as on a GPU.
   To run the tests with it:

       cc -O3 -march=native -ffp-contract=off -shared -fPIC tests/runtime/other_order.c \
           -o build/other_order.so -lm
       VIDEOPRISM_MLX_OPENBLAS=build/other_order.so make test
*/
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { COLUMN_MAJOR = 102, ROW_MAJOR = 101, NOT_TRANSPOSED = 111 };

static float *packed(const float *from, int rows, int columns, int stride, int transposed) {
    float *to = malloc(sizeof(float) * (size_t)rows * columns + 64);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++)
            to[(size_t)i * columns + j] =
                transposed ? from[(size_t)j * stride + i] : from[(size_t)i * stride + j];
    return to;
}

static int parts_of(int m, int n, int k) {
    int parts = 1;
    if (m == 1 || n == 1) parts = 32;
    else if ((long)m * n <= 16384 && k >= 64) parts = 2 + k / 128;
    else if (m < 64) parts = 4;
    return parts < k ? parts : k > 0 ? k : 1;
}

void cblas_sgemm(int order, int a_order, int b_order, int m, int n, int k, float alpha,
                 const float *a, int a_stride, const float *b, int b_stride, float beta, float *c,
                 int c_stride) {
    if (order == COLUMN_MAJOR) {
        cblas_sgemm(ROW_MAJOR, b_order, a_order, n, m, k, alpha, b, b_stride, a, a_stride, beta, c,
                    c_stride);
        return;
    }
    float *left = packed(a, m, k, a_stride, a_order != NOT_TRANSPOSED);
    float *right = packed(b, k, n, b_stride, b_order != NOT_TRANSPOSED);
    int parts = parts_of(m, n, k);
    float *sums = malloc(sizeof(float) * (size_t)n * parts + 64);
    for (int i = 0; i < m; i++) {
        memset(sums, 0, sizeof(float) * (size_t)n * parts);
        for (int term = 0; term < k; term++) {
            float factor = left[(size_t)i * k + term], *sum = sums + (size_t)(term % parts) * n;
            const float *row = right + (size_t)term * n;
            for (int j = 0; j < n; j++) sum[j] = fmaf(factor, row[j], sum[j]);
        }
        for (int step = 1; step < parts; step *= 2)
            for (int part = 0; part + step < parts; part += 2 * step)
                for (int j = 0; j < n; j++)
                    sums[(size_t)part * n + j] += sums[(size_t)(part + step) * n + j];
        float *row = c + (size_t)i * c_stride;
        for (int j = 0; j < n; j++) row[j] = alpha * sums[j] + (beta == 0 ? 0 : beta * row[j]);
    }
    free(left);
    free(right);
    free(sums);
}
