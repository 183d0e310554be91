data "aws_region" "current" {}

resource "aws_eks_pod_identity_association" "pods" {
  cluster_name    = split("/", var.cluster_arn)[1]
  namespace       = var.namespace
  service_account = var.service_account
  role_arn        = aws_iam_role.pods.arn

  tags = { Name = var.name }

  # Pods that start before the policy exists get AccessDenied.
  depends_on = [aws_iam_role_policy.storage]
}

# EKS Pod Identity tags each session with the cluster, the namespace and the service
# account. Without the conditions an association in any cluster of the account could
# use the role.
# https://docs.aws.amazon.com/eks/latest/userguide/pod-id-role.html
resource "aws_iam_role" "pods" {
  name        = "${var.name}-pods-${data.aws_region.current.region}"
  description = "Pods of service account ${var.namespace}/${var.service_account}"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "pods.eks.amazonaws.com" }
      Action    = ["sts:AssumeRole", "sts:TagSession"]
      Condition = {
        StringEquals = {
          "aws:RequestTag/eks-cluster-arn"            = var.cluster_arn
          "aws:RequestTag/kubernetes-namespace"       = var.namespace
          "aws:RequestTag/kubernetes-service-account" = var.service_account
        }
      }
    }]
  })
}

# The calls of the service and no others: a test compares both.
resource "aws_iam_role_policy" "storage" {
  name = "storage"
  role = aws_iam_role.pods.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid    = "Users"
        Effect = "Allow"
        Action = [
          "dynamodb:DeleteItem",
          "dynamodb:GetItem",
          "dynamodb:PutItem",
          "dynamodb:Scan",
          "dynamodb:UpdateItem",
        ]
        Resource = var.table_arn
      },
      {
        Sid    = "Avatars"
        Effect = "Allow"
        Action = [
          "s3:DeleteObject",
          "s3:GetObject",
          "s3:PutObject",
        ]
        Resource = "${var.bucket_arn}/avatars/*"
      },
      {
        # Without a condition: with one, S3 returns 403 for a missing key, not 404.
        Sid      = "ListAvatars"
        Effect   = "Allow"
        Action   = ["s3:ListBucket"]
        Resource = var.bucket_arn
      },
    ]
  })
}
